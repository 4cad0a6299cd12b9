"""The picture that takes the player's place where no script runs: requests and tokens per step, blocks held.

It is drawn from the same trace, in the same colours.
"""

from collections import Counter

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from minillm.measure.trace import (
    Kind,
    RequestAdded,
    RequestFinished,
    StepRecord,
    TokenRecord,
    Trace,
)
from minillm.viz.style import (
    ACCEPTED,
    DECODE,
    FAINT,
    INK,
    KV,
    PREFILL,
    REJECTED,
    WASTE,
    Picture,
    style,
)

COLORS: dict[Kind, str] = {"prefill": PREFILL, "decode": DECODE, "padding": WASTE}
MAX_ROWS = 60


def stand_in(trace: Trace, axis: str = "steps", blocks: bool = True) -> Picture:
    """Return the picture of a whole run over its steps or, with `axis="time"`, over milliseconds.

    Of more than 60 requests, the first 60 are drawn. `blocks` adds the number of blocks that are held.
    """
    steps = trace.of(StepRecord)
    requests = [record.request_id for record in trace.of(RequestAdded)][:MAX_ROWS]
    places = _places(steps, axis)
    heights = [0.13 * len(requests) + 0.3, 0.7, *([0.7] if blocks else [])]
    with style():
        figure = Picture(figsize=(8.6, 1.5 + sum(heights[1:]) + 0.13 * len(requests)))
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        _tape(axes[0], trace, steps, requests, places)
        _tokens(axes[1], steps, places)
        if blocks:
            _blocks(axes[2], steps, places)
        axes[-1].set_xlabel("step" if axis == "steps" else "ms")
        axes[-1].set_xlim(0, _end(places))
        handles = [
            Patch(color=COLORS[kind], label=kind) for kind in COLORS if any(s.num_tokens(kind) for s in steps)
        ]
        if any(part.num_cached_tokens for step in steps for part in step.scheduled):
            handles.append(Patch(color=KV, label="prefix hit"))
        if any(part.drafts for step in steps for part in step.scheduled):
            handles += [
                Patch(color=REJECTED, label="rejected draft"),
                Patch(color=ACCEPTED, label="accepted draft"),
            ]
        figure.legend(handles=handles, loc="outside upper right", ncols=4)
    return figure


def _places(steps: list[StepRecord], axis: str) -> list[tuple[float, float]]:
    """Return where each step begins on the x axis, and its width."""
    if axis == "steps":
        return [(float(number), 1.0) for number in range(len(steps))]
    return [(1e3 * (step.start - steps[0].start), 1e3 * (step.end - step.start)) for step in steps]


def _end(places: list[tuple[float, float]]) -> float:
    return sum(places[-1]) if places else 1.0


def _tape(
    axes: Axes,
    trace: Trace,
    steps: list[StepRecord],
    requests: list[str],
    places: list[tuple[float, float]],
) -> None:
    rows = {name: row for row, name in enumerate(requests)}
    spans: dict[tuple[str, Kind], list[tuple[float, float]]] = {}
    for place, step, accepted in zip(places, steps, _accepted(trace), strict=True):
        for part in step.scheduled:
            spans.setdefault((part.request_id, part.kind), []).append(place)
            if part.drafts and part.request_id in rows:
                one, top = 0.8 / part.num_tokens, rows[part.request_id] - 0.4
                rejected = one * (part.num_drafts - accepted[part.request_id])
                axes.broken_barh([place], (top, rejected), facecolors=REJECTED, zorder=2)
                below = (top + rejected, one * accepted[part.request_id])
                axes.broken_barh([place], below, facecolors=ACCEPTED, zorder=2)
            if part.num_cached_tokens and part.request_id in rows:
                share = part.num_cached_tokens / (part.num_cached_tokens + part.num_tokens)
                top = rows[part.request_id] - 0.4
                axes.broken_barh([place], (top, 0.8 * share), facecolors=KV, zorder=2)
        for name in step.preempted:
            if name in rows:
                axes.plot(place[0], rows[name], "x", color=INK, ms=4, mew=1.3, zorder=3)
    last = {
        name: max((_end(s) for (n, _), s in spans.items() if n == name), default=0.0) for name in requests
    }
    done = {record.request_id for record in trace.of(RequestFinished)}
    for name, row in rows.items():
        axes.hlines(row, 0, last[name] if name in done else _end(places), color=FAINT, lw=0.6, zorder=0)
    for (name, kind), parts in spans.items():
        if name in rows:
            axes.broken_barh(parts, (rows[name] - 0.4, 0.8), facecolors=COLORS[kind])
    axes.set_ylim(len(requests) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_ylabel("request")


def _accepted(trace: Trace) -> list[Counter[str]]:
    """Return the number of accepted drafts of each request, for each step."""
    counts, now = list[Counter[str]](), Counter[str]()
    for record in trace:
        if isinstance(record, TokenRecord):
            now[record.request_id] += record.origin == "accepted"
        elif isinstance(record, StepRecord):  # it comes after its tokens
            counts.append(now)
            now = Counter()
    return counts


def _tokens(axes: Axes, steps: list[StepRecord], places: list[tuple[float, float]]) -> None:
    base = [0] * len(steps)
    left, widths = [start for start, _ in places], [width for _, width in places]
    for kind, color in COLORS.items():
        heights = [step.num_tokens(kind) for step in steps]
        axes.bar(left, heights, bottom=base, width=widths, align="edge", color=color, lw=0)
        base = [low + height for low, height in zip(base, heights, strict=True)]
    axes.set_ylabel("tokens")


def _blocks(axes: Axes, steps: list[StepRecord], places: list[tuple[float, float]]) -> None:
    counts = [step.blocks for step in steps]
    held = [0 if count is None else count.total - count.free for count in counts]
    left, widths = [start for start, _ in places], [width for _, width in places]
    axes.bar(left, held, width=widths, align="edge", color=KV, lw=0)
    axes.set_ylim(0, max([1, *(count.total for count in counts if count is not None)]))
    axes.set_ylabel("blocks")
