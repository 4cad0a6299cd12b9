"""The picture that takes the player's place where no script runs: requests over time, tokens per step, blocks held.

It is drawn from the same trace, in the same colours.
"""

from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from minillm.measure.trace import Kind, RequestAdded, RequestFinished, StepRecord, Trace
from minillm.viz.style import DECODE, FAINT, INK, KV, PREFILL, WASTE, Picture, style

COLORS: dict[Kind, str] = {"prefill": PREFILL, "decode": DECODE, "padding": WASTE}
MAX_ROWS = 60


def stand_in(trace: Trace) -> Picture:
    """Return the picture of a whole run; of more than 60 requests, the first 60 are drawn."""
    steps = trace.of(StepRecord)
    requests = [record.request_id for record in trace.of(RequestAdded)][:MAX_ROWS]
    with style():
        figure = Picture(figsize=(8.6, 2.9 + 0.13 * len(requests)))
        tape, tokens, blocks = figure.subplots(
            3, 1, sharex=True, height_ratios=[0.13 * len(requests) + 0.3, 0.7, 0.7]
        )
        _tape(tape, trace, steps, requests)
        _tokens(tokens, steps)
        _blocks(blocks, steps)
        blocks.set_xlabel("step")
        blocks.set_xlim(0, max(1, len(steps)))
        handles = [
            Patch(color=COLORS[kind], label=kind) for kind in COLORS if any(s.num_tokens(kind) for s in steps)
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=3)
    return figure


def _tape(axes: Axes, trace: Trace, steps: list[StepRecord], requests: list[str]) -> None:
    rows = {name: row for row, name in enumerate(requests)}
    spans: dict[tuple[str, Kind], list[int]] = {}
    for number, step in enumerate(steps):
        for part in step.scheduled:
            spans.setdefault((part.request_id, part.kind), []).append(number)
        for name in step.preempted:
            if name in rows:
                axes.plot(number, rows[name], "x", color=INK, ms=4, mew=1.3, zorder=3)
    last = {name: max((s[-1] for (n, _), s in spans.items() if n == name), default=0) for name in requests}
    done = {record.request_id for record in trace.of(RequestFinished)}
    for name, row in rows.items():
        axes.hlines(row, 0, last[name] if name in done else len(steps), color=FAINT, lw=0.6, zorder=0)
    for (name, kind), numbers in spans.items():
        if name in rows:
            axes.broken_barh(_runs(numbers), (rows[name] - 0.4, 0.8), facecolors=COLORS[kind])
    axes.set_ylim(len(requests) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_ylabel("request")


def _runs(numbers: list[int]) -> list[tuple[float, float]]:
    """Steps that follow one another as (start, width)."""
    grouped = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    starts = [[number for _, number in group] for _, group in grouped]
    return [(float(one[0]), float(len(one))) for one in starts]


def _tokens(axes: Axes, steps: list[StepRecord]) -> None:
    base = [0] * len(steps)
    x = [number + 0.5 for number in range(len(steps))]
    for kind, color in COLORS.items():
        heights = [step.num_tokens(kind) for step in steps]
        axes.bar(x, heights, bottom=base, width=1.0, color=color, lw=0)
        base = [low + height for low, height in zip(base, heights, strict=True)]
    axes.set_ylabel("tokens")


def _blocks(axes: Axes, steps: list[StepRecord]) -> None:
    counts = [step.blocks for step in steps]
    held = [0 if count is None else count.total - count.free for count in counts]
    x = [number + 0.5 for number in range(len(steps))]
    axes.fill_between(x, held, step="mid", color=KV, lw=0)
    axes.set_ylim(0, max([1, *(count.total for count in counts if count is not None)]))
    axes.set_ylabel("blocks")
