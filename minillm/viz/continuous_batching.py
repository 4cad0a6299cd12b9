"""Chapter 8's pictures: the requests of each step, the step's budget and memory, and the effect on latency.

Each is drawn from the trace of a run (`LLM(trace=True)`). Nothing is scheduled here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Protocol

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from minillm.measure.trace import (
    Kind,
    RequestAdded,
    RequestFinished,
    ScheduledRequest,
    StepRecord,
    TokenRecord,
    Trace,
    inter_token_latencies,
    ttft,
)
from minillm.viz.style import ACCEPTED, DECODE, FAINT, INK, KV, PAPER, PREFILL, WASTE, Picture, quiet, style
from minillm.viz.widget import Explorer

HOLE = "#F3D0BC"  # a pale REJECTED: a time in which nothing comes out
COLORS: dict[Kind, str] = {"prefill": PREFILL, "decode": DECODE, "padding": WASTE}
MEANING: dict[Kind, str] = {
    "prefill": "prefill",
    "decode": "decode",
    "padding": "padding: computed for a request that has finished",
}


def tokens_computed(trace: Trace) -> Counter[str]:
    """Return the new tokens of all steps by kind; "again" counts tokens that were computed before a preemption, too."""
    counts: Counter[str] = Counter(dict.fromkeys((*COLORS, "again"), 0))
    furthest: dict[str, int] = {}
    for step in trace.of(StepRecord):
        for part in step.scheduled:
            counts[part.kind] += part.num_tokens
            if part.kind != "padding":
                counts["again"] += _computed_before(part, furthest)
            end = part.num_computed_tokens + part.num_tokens
            furthest[part.request_id] = max(end, furthest.get(part.request_id, 0))
    return counts


def _computed_before(part: ScheduledRequest, furthest: Mapping[str, int]) -> int:
    """Return how many of a part's tokens an earlier step has computed for the same request."""
    start, end = part.num_computed_tokens, part.num_computed_tokens + part.num_tokens
    return max(0, min(end, furthest.get(part.request_id, 0)) - start)


def gantt_figure(traces: Mapping[str, Trace], step: int, milliseconds: bool = False) -> Picture:
    """Draw the same requests in each trace, one row per request, up to step `step` (from 1) of the longest run.

    All panels have the same axis, in steps or milliseconds. A thin line is a waiting request, and a cross is its
    preemption.
    """
    steps = {name: trace.of(StepRecord) for name, trace in traces.items()}
    most = max(steps.values(), key=len)
    longest = len(most)
    end = max(run[-1].end - run[0].start for run in steps.values())
    now = most[step - 1].end - most[0].start if step < longest else end
    with style():
        rows = max(len(trace.of(RequestAdded)) for trace in traces.values())
        figure = Picture(figsize=(9, 0.9 + len(traces) * (0.75 + 0.11 * rows)))
        panels = figure.subplots(len(traces), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, trace) in zip(panels, traces.items(), strict=True):
            run = steps[name]
            done = sum(s.end - run[0].start <= now for s in run) if milliseconds else min(step, len(run))
            _gantt(axes, trace, done, milliseconds)
            axes.set_title(f"{name}: {_state(trace, done)}")
            axes.axvline(now * 1e3 if milliseconds else min(step, longest), color=INK, lw=0.8)
        panels[-1].set_xlim(0, end * 1e3 if milliseconds else longest)
        panels[-1].set_xlabel("milliseconds" if milliseconds else "step of the engine")
        kinds = [kind for kind in COLORS if any(s.num_tokens(kind) for run in steps.values() for s in run)]
        handles: list[Artist] = [Patch(color=COLORS[kind], label=MEANING[kind]) for kind in kinds]
        handles.append(Line2D([], [], color=FAINT, lw=0.8, label="waits"))
        if any(record.preempted for run in steps.values() for record in run):
            handles.append(Line2D([], [], color=INK, marker="x", mew=1.4, ls="", label="preempted"))
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
        return figure


def gantt_explorer(traces: Mapping[str, Trace], step: int) -> Explorer:
    """Return `gantt_figure` with a slider over the steps of the longest run."""
    longest = max(len(trace.of(StepRecord)) for trace in traces.values())
    return Explorer(
        lambda step, milliseconds: gantt_figure(traces, step, milliseconds),
        step=(1, longest, step),
        milliseconds=False,
    )


def _gantt(axes: Axes, trace: Trace, done: int, milliseconds: bool) -> None:
    """Draw a bar for each request and step, for the first `done` steps."""
    run = trace.of(StepRecord)
    row_of = {added.request_id: row for row, added in enumerate(trace.of(RequestAdded))}
    bars: dict[tuple[int, Kind], list[tuple[float, float]]] = {}
    finished = {record.request_id for record in _first_steps(trace, done).of(RequestFinished)}
    last = dict.fromkeys(row_of, 0.0)
    for number, step in enumerate(run[:done]):
        left, width = _span(run, number, milliseconds)
        for part in step.scheduled:
            row = row_of[part.request_id]
            bars.setdefault((row, part.kind), []).append((left, width))
            last[part.request_id] = left
        for request_id in step.preempted:
            axes.plot(left, row_of[request_id], "x", color=INK, ms=5, mew=1.4, zorder=3)
    here = sum(_span(run, done - 1, milliseconds)) if done else 0.0
    for request_id, row in row_of.items():
        until = last[request_id] if request_id in finished else here
        axes.hlines(row, 0, until, color=FAINT, lw=0.6, zorder=0)
    for (row, kind), spans in bars.items():
        axes.broken_barh(spans, (row - 0.4, 0.8), facecolors=COLORS[kind], edgecolor="white", lw=0.25)
    axes.set_ylim(len(row_of) - 0.3, -0.7)
    axes.set_yticks([])
    axes.set_ylabel("request")


def _span(run: Sequence[StepRecord], number: int, milliseconds: bool) -> tuple[float, float]:
    """Return where a step begins on the axis, and its width."""
    if not milliseconds:
        return float(number), 1.0
    step = run[number]
    return (step.start - run[0].start) * 1e3, (step.end - step.start) * 1e3


def _state(trace: Trace, done: int) -> str:
    """Describe the state after the first `done` steps."""
    so_far = _first_steps(trace, done)
    finished, requests = len(so_far.of(RequestFinished)), len(trace.of(RequestAdded))
    counts = tokens_computed(so_far)
    padding, preempted = counts["padding"], sum(len(s.preempted) for s in so_far.of(StepRecord))
    computed = sum(counts[kind] for kind in COLORS)
    text = f"{finished} of {requests} done after {done} step{'s' * (done != 1)}"
    if padding:
        text += f", {padding / computed:.0%} of the work was padding"
    if preempted:
        text += f", {preempted} preemption{'s' * (preempted > 1)}, {counts['again']} tokens computed again"
    return text


def _first_steps(trace: Trace, count: int) -> Trace:
    """Return the records up to the end of step number `count`. A step's tokens precede its own record."""
    kept, seen = Trace(), 0
    for record in trace:
        if seen == count:
            break
        kept.append(record)
        seen += isinstance(record, StepRecord)
    return kept


def step_figure(trace: Trace, budget: int, step: int) -> Picture:
    """Draw each step's tokens by kind with the budget, the two queues, and the free blocks.

    The title has the numbers of step `step` (from 1). Raises ValueError for a trace whose cache has no blocks.
    """
    run = trace.of(StepRecord)
    blocks = [record.blocks for record in run if record.blocks is not None]
    if len(blocks) != len(run):
        raise ValueError(
            "this picture shows free blocks, but the cache of this run has none: use kv_cache='paged'"
        )
    x, at = range(1, len(run) + 1), run[min(step, len(run)) - 1]
    with style():
        figure = Picture(figsize=(9, 5.2))
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[2, 1.1, 1.1])
        base = [0] * len(run)
        for kind, color in COLORS.items():
            heights = [record.num_tokens(kind) for record in run]
            if any(heights):
                top.bar(
                    x, heights, bottom=base, width=1.0, color=color, label=f"{kind}: {at.num_tokens(kind)}"
                )
            base = [low + height for low, height in zip(base, heights, strict=True)]
        top.axhline(budget, color=INK, lw=1, ls="--")
        top.set_ylim(0, max(budget, *base) * 1.3)
        top.text(len(run) + 0.5, budget, f"budget {budget}", ha="right", va="bottom", fontsize=9)
        top.set_ylabel("tokens")
        top.set_title(f"Step {at.step - run[0].step + 1}: {at.num_tokens()} tokens")
        over_the_line = {"frameon": True, "framealpha": 1, "edgecolor": "none"}
        top.legend(loc="upper left", ncols=3, **over_the_line)
        for name, color in (("waiting", FAINT), ("running", DECODE)):
            values = [getattr(record, f"num_{name}") for record in run]
            here = values[x.index(min(step, len(run)))]
            middle.step(x, values, where="mid", color=color, label=f"{name}: {here}")
        middle.set_ylim(bottom=0)
        middle.set_ylabel("requests")
        total, used = blocks[0].total, [block.total - block.free for block in blocks]
        bottom.fill_between(x, used, step="mid", color=KV, lw=0)
        bottom.axhline(total, color=INK, lw=1, ls="--")
        here = used[x.index(min(step, len(run)))]
        bottom.text(1, total, f"in use: {here} of {total} blocks", va="bottom", fontsize=9)
        bottom.set_ylim(0, total * 1.35)
        bottom.set_ylabel("blocks")
        bottom.set_xlabel("step of the engine")
        bottom.set_xlim(0.5, len(run) + 0.5)
        middle.legend(loc="upper right", ncols=2, **over_the_line)
        for axes in (top, middle, bottom):
            axes.axvline(min(step, len(run)), color=INK, lw=0.8)
        return figure


def comparison_figure(lengths: Sequence[int], runs: Mapping[str, tuple[float, int]]) -> Picture:
    """Draw the lengths of the outputs, and for each scheduler the seconds and steps that all of them take."""
    with style():
        figure = Picture(figsize=(9, 3))
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
        left.hist(lengths, bins=range(0, max(lengths) + 8, 8), color=DECODE, edgecolor="white")
        left.set_title(
            f"{len(lengths)} outputs, mean {sum(lengths) / len(lengths):.0f}, median {median(lengths):g}"
        )
        left.set_xlabel("tokens of the output")
        left.set_ylabel("requests")
        fastest = min(seconds for seconds, _ in runs.values())
        for row, (seconds, steps) in enumerate(runs.values()):
            right.barh(row, seconds, color=DECODE, height=0.5)
            text = f" {seconds:.2f} s, ×{seconds / fastest:.1f}, {steps} steps"
            right.text(seconds, row, text, va="center", fontsize=9)
        right.set_title("The time for all of them")
        right.set_yticks(range(len(runs)), list(runs))
        right.invert_yaxis()
        right.set_xlim(0, max(seconds for seconds, _ in runs.values()) * 1.75)
        quiet(right)
        return figure


def latency_figure(traces: Mapping[str, Trace], late: Sequence[str]) -> Picture:
    """Draw requests that decode while the prompts of `late` arrive: one panel per trace, one row per request.

    Each tick is a token. The longest wait for a token before the first of `late` has its first token is shaded. The
    title has this wait, and the TTFT of the first of `late`. Raises ValueError if no request decodes meanwhile.
    """
    with style():
        rows = max(len(trace.of(RequestAdded)) for trace in traces.values())
        figure = Picture(figsize=(9.4, 0.9 + len(traces) * (0.5 + 0.24 * rows)))
        panels = figure.subplots(len(traces), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (name, trace) in zip(panels, traces.items(), strict=True):
            _ticks(axes, trace, late)
            first = ttft(trace)[late[0]]
            time, worst = longest_wait(trace, late)
            _hole(axes, trace, len(late), time, worst)
            axes.set_title(
                f"{name}: longest wait {worst * 1e3:.0f} ms, TTFT of the long prompt {first * 1e3:.0f} ms",
                fontsize=10,
            )
        panels[-1].set_xlim(left=0)
        panels[-1].set_xlabel("milliseconds")
        panels[-1].xaxis.set_major_formatter("{x:,.0f}")
        handles: list[Artist] = [
            Line2D([], [], color=DECODE, marker="|", ms=11, mew=2, ls="", label="a token comes out"),
            Patch(color=PREFILL, label="a part of the long prompt is computed"),
            Line2D([], [], color=INK, marker=">", ms=6, ls="", label="it arrives"),
            Patch(color=HOLE, label="longest wait of a request that decodes"),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=9, columnspacing=1.4)
        return figure


class Timed(Protocol):
    """A request under load: seconds to its first token, and between one token and the next."""

    @property
    def ttft(self) -> float: ...
    @property
    def gaps(self) -> list[float]: ...


def knee_figure(
    waits: Mapping[float, Sequence[float]], goodput: Mapping[float, float], limit: float
) -> Picture:
    """Return the waits for a place in steps, and the goodput as a share of the capacity, against the load.

    `waits` has how many steps each request waited, for each load (a share of the capacity). `limit` is the promise.
    """
    loads = [100 * load for load in waits]
    with style():
        figure = Picture(figsize=(9, 3))
        wait, good = figure.subplots(1, 2)
        for percent, line in ((95, "-"), (50, "--")):
            points = [quantiles(some, n=100)[percent - 1] for some in waits.values()]
            wait.plot(loads, points, line, color=DECODE, label=f"p{percent}")
        wait.axhline(limit, color=INK, linestyle=":", label=f"the promise: {limit:g} steps")
        wait.set_title("wait for a place (steps)")
        wait.legend(loc="upper left")
        served = [load for load in loads if load <= 100]
        good.plot(served, served, ":", color=INK, label="if every request were good")
        good.plot(loads, [100 * goodput[load] for load in waits], "-", color=ACCEPTED, label="goodput")
        good.set_ylim(0, 130)
        good.set_title("goodput (% of capacity)")
        good.legend(loc="upper left")
        for axes in (wait, good):
            axes.set_xlabel("load (% of capacity)")
        return figure


def load_figure(load: Mapping[float, Sequence[Timed]], goodput: Mapping[float, float]) -> Picture:
    """Return latency and goodput against the load. Loads are shares of the engine's capacity."""
    shares = list(load)
    with style():
        figure = Picture(figsize=(9, 3))
        first, gap, good = figure.subplots(1, 3)
        for axes, title, values in (
            (first, "time to first token", [[one.ttft for one in load[share]] for share in shares]),
            (gap, "inter-token latency", [[g for one in load[share] for g in one.gaps] for share in shares]),
        ):
            for percent, line in ((95, "-o"), (50, "--o")):
                points = [quantiles(some, n=100)[percent - 1] * 1e3 for some in values]
                axes.plot([100 * share for share in shares], points, line, color=DECODE, label=f"p{percent}")
            axes.set_title(f"{title} (ms)")
            axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
            axes.legend(loc="upper left", ncols=2)
        good.bar(
            [str(round(100 * share)) for share in shares],
            [goodput[share] for share in shares],
            color=ACCEPTED,
        )
        good.set_title("goodput (requests/s)")
        for axes in (first, gap):
            axes.set_xticks([100 * share for share in shares])
            axes.xaxis.set_major_formatter("{x:.0f}")
        for axes in (first, gap, good):
            axes.set_xlabel("load (% of capacity)")
        return figure


def batch_figure(seconds: Mapping[int, float]) -> Picture:
    """Return the time of a decode step and the tokens per second against the number of requests in the step."""
    sizes = list(seconds)
    with style():
        figure = Picture(figsize=(9, 2.8))
        latency, throughput = figure.subplots(1, 2)
        latency.plot(sizes, [seconds[size] * 1e3 for size in sizes], "-o", color=DECODE)
        latency.set_title("time of one token (ms)")
        throughput.plot(sizes, [size / seconds[size] for size in sizes], "-o", color=ACCEPTED)
        throughput.set_title("tokens per second")
        for axes in (latency, throughput):
            axes.set_xscale("log", base=2)
            axes.set_xticks(sizes, list(map(str, sizes)))
            axes.minorticks_off()
            axes.set_xlabel("requests in the batch")
            axes.set_ylim(bottom=0)
        return figure


def _ticks(axes: Axes, trace: Trace, late: Sequence[str]) -> None:
    """Draw one row per request, with ticks at the times of its tokens, and for `late` the steps of their prefill."""
    added = {record.request_id: record.time for record in trace.of(RequestAdded)}
    zero = min(added.values())
    for row, (request_id, arrival) in enumerate(added.items()):
        times = [
            1e3 * (token.time - zero) for token in trace.of(TokenRecord) if token.request_id == request_id
        ]
        axes.eventplot(times, lineoffsets=row, linelengths=0.7, linewidths=1.2, colors=DECODE, zorder=3)
        if request_id in late:
            axes.plot(1e3 * (arrival - zero), row, ">", ms=6, color=INK, zorder=4)
            spans = [
                (1e3 * (step.start - zero), 1e3 * (step.end - step.start))
                for step in trace.of(StepRecord)
                if any(part.request_id == request_id and part.kind == "prefill" for part in step.scheduled)
            ]
            axes.broken_barh(spans, (row - 0.35, 0.7), facecolors=PREFILL, edgecolor=PAPER, lw=0.5)
    names = ["long prompt" if request_id in late else f"request {request_id}" for request_id in added]
    axes.set_yticks(range(len(added)), names, fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(added) - 0.4, -0.6)


def longest_wait(trace: Trace, late: Sequence[str]) -> tuple[float, float]:
    """Return the end and the seconds of the longest wait of the other requests.

    Only waits that end between the arrival of the first late request and its first token count. Raises ValueError if no
    request decodes meanwhile.
    """
    first = ttft(trace)[late[0]]
    arrival = next(record.time for record in trace.of(RequestAdded) if record.request_id == late[0])
    waits = [
        (time, wait)
        for request_id, time, wait in waits_of(trace)
        if request_id not in late and arrival < time <= arrival + first
    ]
    if not waits:
        raise ValueError(f"No request decodes while request {late[0]!r} waits for its first token.")
    return max(waits, key=lambda ended: ended[1])


def _hole(axes: Axes, trace: Trace, num_late: int, time: float, wait: float) -> None:
    """Shade a wait that ended at `time`, over the rows of all requests that decode."""
    added = trace.of(RequestAdded)
    left = 1e3 * (time - wait - min(record.time for record in added))
    axes.add_patch(Rectangle((left, -0.5), 1e3 * wait, len(added) - num_late, color=HOLE, lw=0, zorder=0))


def waits_of(trace: Trace) -> list[tuple[str, float, float]]:
    """Return (request, time, seconds since its previous token) for every token but each request's first."""
    latencies = {name: iter(waits) for name, waits in inter_token_latencies(trace).items()}
    return [
        (token.request_id, token.time, next(latencies[token.request_id]))
        for token in trace.of(TokenRecord)
        if token.index > 0
    ]
