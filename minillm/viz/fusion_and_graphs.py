"""Chapter 11's pictures: the launches of a step on a time axis, the gain of fusion, and the padding of graphs.

Each is drawn from a profiler's record, from a count of operators, from the buffers of a run, or from data sheets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from minillm.batch import Batch
from minillm.config import ModelConfig
from minillm.engine.graphs import DecodeGraphs
from minillm.measure.costs import decode_cost
from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.roofline import time_at
from minillm.viz.launches import Call, Timeline
from minillm.viz.style import DECODE, FAINT, INK, KV, WASTE, Picture, quiet, style
from minillm.viz.widget import Explorer

Kind = Literal["matrix product", "attention and cache", "between them", "view"]
COLORS: dict[Kind, str] = {
    "matrix product": DECODE,
    "attention and cache": KV,
    "between them": INK,
    "view": FAINT,
}
SHADES = (1.0, 0.55, 0.25)  # of one colour: the ways to run the same operations
_VIEWS = set(
    "alias as_strided chunk detach expand flatten narrow permute reshape select slice split squeeze t transpose "
    "unsqueeze view".split()
)
_ATTENTION = ("attention", "attn", "fmha", "flash", "index_copy", "index_put", "write_kv", "softmax")
_PRODUCTS = ("mm", "matmul", "gemm", "gemv", "linear", "cutlass", "nvjet")


def kind(name: str) -> Kind:
    """Return the purpose of an operator or of a GPU's kernel, by its name."""
    lower = name.lower()
    if lower in _VIEWS:
        return "view"
    if any(word in lower for word in _ATTENTION):
        return "attention and cache"
    return "matrix product" if any(word in lower for word in _PRODUCTS) else "between them"


def timeline_figure(runs: Mapping[str, Sequence[Timeline]], step: int, zoom: int, place: int) -> Picture:
    """Draw step number `step` (from 1) of each run over time, in a window of 1 / `zoom` of it at `place` %."""
    shown = {name: steps[min(step, len(steps)) - 1] for name, steps in runs.items()}
    longest = 1e3 * max(timeline.seconds for timeline in shown.values())
    begin = (longest - longest / zoom) * place / 100
    window = (begin, begin + longest / zoom)
    with style():
        figure = Picture(figsize=(9, 0.75 + 1.05 * len(shown)))
        panels = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (name, timeline) in zip(panels, shown.items(), strict=True):
            _launches(axes, timeline, window)
            axes.set_title(in_words(name, timeline), fontsize=9)
        where = {"cpu": "profile of the CPU", "cuda": "profile of the GPU"}[next(iter(shown.values())).on]
        panels[-1].set_xlabel(f"milliseconds since the step began ({where}, step {step})")
        panels[-1].set_xlim(*window)
        handles = [Patch(color=color, label=name) for name, color in COLORS.items()]
        handles.append(Patch(color=WASTE, label="a gap: no launch is running"))
        figure.legend(handles=handles, loc="outside upper left", ncols=5, fontsize=9, columnspacing=1.2)
        return figure


def _launches(axes: Axes, timeline: Timeline, window: tuple[float, float]) -> None:
    axes.add_patch(Rectangle((0, 0.12), 1e3 * timeline.seconds, 0.76, color=WASTE, lw=0))
    for launch in timeline.launches:
        start, end = 1e3 * launch.start, 1e3 * launch.end
        if end < window[0] or start > window[1]:
            continue
        color = COLORS[kind(launch.name)]
        axes.add_patch(Rectangle((start, 0), end - start, 1, color=color, lw=0))
        seen = min(end, window[1]) - max(start, window[0])
        if seen / (window[1] - window[0]) > 0.013 * len(launch.name):
            middle = (max(start, window[0]) + min(end, window[1])) / 2
            text = INK if color == KV else "white"
            axes.text(middle, 0.5, launch.name, ha="center", va="center", fontsize=9, color=text)
    if 1e3 * timeline.seconds < window[0]:
        axes.text(
            window[0],
            0.5,
            f"  ended at {1e3 * timeline.seconds:.2f} ms",
            va="center",
            fontsize=9,
            color=FAINT,
        )
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def in_words(name: str, timeline: Timeline) -> str:
    """Return how many launches a step has, how long it takes, and the share of it in which none is running."""
    unit = "operator calls" if timeline.on == "cpu" else "kernels"
    idle = 1 - timeline.busy / timeline.seconds
    launches = f"{len(timeline.launches)} {unit} in {timeline.seconds * 1e3:.2f} ms"
    return f"{name}: {launches}, none running in {idle:.0%} of it"


def fastest(runs: Mapping[str, Sequence[Timeline]]) -> int:
    """Return the number (from 1) of the fastest step: other work on the machine disturbed it least."""
    count = min(map(len, runs.values()))
    total = [sum(timelines[i].seconds for timelines in runs.values()) for i in range(count)]
    return 1 + total.index(min(total))


def timeline_explorer(runs: Mapping[str, Sequence[Timeline]]) -> Explorer:
    """Show `timeline_figure` under sliders over steps, zoom and place."""
    count = min(map(len, runs.values()))
    return Explorer(
        partial(timeline_figure, runs), step=(1, count, fastest(runs)), zoom=(1, 40, 6), place=(0, 100, 40)
    )


def fusion_figure(
    steps: Mapping[str, Sequence[Call]], chains: Mapping[str, Mapping[str, int]], num_layers: int, what: str
) -> Picture:
    """Draw the launches per layer of each way of running a step, and the bytes that each chain of operations moves.

    `steps` are the calls of whole steps, views left out; `chains` are bytes by chain and then by the same ways.
    """
    with style():
        figure = Picture(figsize=(9, 3.1))
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        _stacks(left, steps, num_layers)
        ways, height = list(steps), 0.8 / len(steps)
        for group, bytes_of in enumerate(chains.values()):
            for i, way in enumerate(ways):
                y, size = group + (i - (len(ways) - 1) / 2) * height, bytes_of[way]
                right.barh(y, size / 1e3, height=0.86 * height, color=INK, alpha=SHADES[i % 3])
                first = bytes_of[ways[0]]
                note = "" if size == first else f"  {size / first - 1:+.0%}"
                right.text(size / 1e3, y, f" {size / 1e3:,.0f}{note}", va="center", fontsize=9)
        right.set_yticks(range(len(chains)), list(chains))
        right.invert_yaxis()
        right.set_xlim(0, 1.35 * max(max(b.values()) for b in chains.values()) / 1e3)
        right.set_title(f"kB moved, {what}")
        quiet(right)
        handles = [Patch(color=INK, alpha=SHADES[i % 3], label=way) for i, way in enumerate(ways)]
        right.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.4, -0.03), ncols=3, fontsize=9)
        return figure


def _stacks(axes: Axes, steps: Mapping[str, Sequence[Call]], num_layers: int) -> None:
    kinds: list[Kind] = ["matrix product", "attention and cache", "between them"]
    for y, calls in enumerate(steps.values()):
        at = 0.0
        for which in kinds:
            number = sum(kind(call.name) == which for call in calls) / num_layers
            axes.barh(y, number, left=at, height=0.55, color=COLORS[which])
            at += number
        axes.text(at, y, f" {at:.1f}", va="center", fontsize=9)
    axes.set_yticks(range(len(steps)), list(steps))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(map(len, steps.values())) / num_layers)
    axes.set_title("launches per layer")
    quiet(axes)
    handles = [Patch(color=COLORS[which], label=which) for which in kinds]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.4, -0.03), ncols=3, fontsize=9)


def next_size(sizes: Sequence[int], batch: int) -> int | None:
    """Return the size of the ladder that a step of `batch` requests runs at, or None beyond its end."""
    return next((size for size in sizes if size >= batch), None)


def wasted_rows(sizes: Sequence[int], batches: Sequence[int]) -> float:
    """Return the share of all rows that are padding, in steps of `batches` requests. Beyond the ladder none are."""
    rows = [next_size(sizes, batch) or batch for batch in batches]
    return 1 - sum(batches) / sum(rows)


def ladder_figure(ladders: Mapping[str, Sequence[int]], batches: Sequence[int], batch: int) -> Picture:
    """Draw the padding of some ladders at each batch size, and over the steps of a real run of `batches` requests."""
    most = max(max(sizes) for sizes in ladders.values())
    with style():
        figure = Picture(figsize=(9, 4))
        figure.set_layout_engine("constrained", wspace=0.08)
        grid = figure.add_gridspec(2, 2, width_ratios=[2.1, 1], height_ratios=[2.4, 1])
        curve, steps, bars = (figure.add_subplot(grid[place]) for place in ((0, 0), (1, 0), (slice(0, 2), 1)))
        colors = [WASTE, FAINT, INK, DECODE]
        for (name, sizes), color in zip(ladders.items(), colors, strict=False):
            x = range(1, most + 1)
            padding = [100 * wasted_rows(sizes, [n]) for n in x]
            size = next_size(sizes, batch)
            runs_as = "eagerly" if size is None else f"as {size}"
            curve.plot(x, padding, drawstyle="steps-mid", lw=1.6, color=color, label=f"{name}: {runs_as}")
        curve.axvline(batch, color=FAINT, lw=0.8, ls=":")
        curve.legend(fontsize=9, loc="upper right", title=f"a step of {batch}", title_fontsize=9)
        curve.set_ylabel("% of rows are padding")
        curve.set_ylim(0, 100)
        curve.set_title("Padding by the number of requests")
        steps.hist(batches, bins=[n + 0.5 for n in range(most + 1)], color=DECODE)
        steps.axvline(batch, color=FAINT, lw=0.8, ls=":")
        steps.set_xlabel(f"requests in a decode step ({len(batches)} steps of a real run)")
        steps.set_ylabel("steps")
        for axes in (curve, steps):
            axes.set_xlim(0.5, most + 0.5)
        shares = [100 * wasted_rows(sizes, batches) for sizes in ladders.values()]
        bars.barh(range(len(shares)), shares, color=colors[: len(shares)], height=0.55)
        for y, (share, sizes) in enumerate(zip(shares, ladders.values(), strict=True)):
            bars.text(
                share,
                y,
                f" {share:.0f} %, {len(sizes)} graph{'s' * (len(sizes) > 1)}",
                va="center",
                fontsize=9.5,
            )
        bars.set_yticks(range(len(shares)), list(ladders))
        bars.invert_yaxis()
        bars.set_xlim(0, 1.9 * max(*shares, 1))
        bars.set_title("Padding in the run")
        quiet(bars)
        return figure


@dataclass(frozen=True, slots=True)
class Frame:
    """The buffers as one replay found them: lists by row, of which the recording of `size` rows sees the first."""

    size: int
    num_requests: int
    slots: list[int]
    lengths: list[int]
    tables: list[list[int]]
    block_size: int


def watch(graphs: DecodeGraphs, frames: list[Frame]) -> None:
    """Append the buffers to `frames` after each step that `graphs` replays."""
    run, buffers, sizes = graphs.run, graphs._buffers, list[int]()

    def noted(size: int, replay: Callable[[], None]) -> None:
        sizes.append(size)
        replay()

    def watched(batch: Batch) -> Tensor | None:
        logits = run(batch)
        if logits is not None:
            frame = Frame(
                size=sizes[-1],
                num_requests=len(logits),
                slots=buffers.slot_mapping.tolist(),
                lengths=buffers.seq_lens.tolist(),
                tables=buffers.block_tables.tolist(),
                block_size=graphs.cache.block_size,
            )
            frames.append(frame)
        return logits

    graphs._replay = {size: partial(noted, size, replay) for size, replay in graphs._replay.items()}
    graphs.run = watched  # type: ignore[method-assign]


def buffers_figure(frames: Sequence[Frame], replay: int) -> Picture:
    """Draw the buffers that replay number `replay` (from 1) finds: its requests, its padding, and stale contents."""
    frame = frames[replay - 1]
    columns = min(
        len(frame.tables[0]), 2 + max(-(-length // frame.block_size) for f in frames for length in f.lengths)
    )
    with style():
        figure = Picture(figsize=(9, 1.5 + 0.33 * len(frame.slots)))
        axes = figure.subplots()
        for row in range(len(frame.slots)):
            _row(axes, frame, row, columns)
        heads = ["slot", "length", *(str(column) for column in range(columns))]
        for x, head in enumerate(heads):
            axes.text(x + 0.5, -0.25, head, ha="center", fontsize=9, color=FAINT)
        axes.text(2 + columns / 2, -0.85, "block table, by column", ha="center", fontsize=9.5)
        axes.set_xlim(-1.1, columns + 2.1)
        axes.set_ylim(len(frame.slots) + 0.1, -1.1)
        axes.set_axis_off()
        who = "1 request runs" if frame.num_requests == 1 else f"{frame.num_requests} requests run"
        axes.set_title(
            f"Replay {replay}: {who} as the graph of {frame.size} row{'s' * (frame.size > 1)}, "
            f"{frame.size - frame.num_requests} of them padding"
        )
        handles = [
            Patch(color=DECODE, label="a request: written and read"),
            Patch(color=KV, label="blocks that it reads"),
            Patch(fc="white", ec=WASTE, hatch="////", label="stale"),
            Patch(color=WASTE, label="padding: -1 writes nothing, 0 reads nothing"),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=9, columnspacing=1.2)
        return figure


def _row(axes: Axes, frame: Frame, row: int, columns: int) -> None:
    real, seen = row < frame.num_requests, row < frame.size
    live = -(-frame.lengths[row] // frame.block_size) if real else 0
    values = [frame.slots[row], frame.lengths[row], *frame.tables[row][:columns]]
    for x, value in enumerate(values):
        if x < 2 and seen:
            face, ink, hatch = (DECODE, "white", "") if real else (WASTE, INK, "")
        elif seen and x - 2 < live:
            face, ink, hatch = KV, INK, ""
        else:
            face, ink, hatch = "white", FAINT, "////"
        cell = Rectangle((x + 0.04, row + 0.06), 0.92, 0.88, fc=face, ec=WASTE, hatch=hatch, lw=0.6)
        axes.add_patch(cell)
        box = {"fc": "white", "ec": "none", "pad": 0.8} if hatch else None
        axes.text(x + 0.5, row + 0.53, str(value), ha="center", va="center", fontsize=9, color=ink, bbox=box)
    name = f"row {row}" if seen else "not in it"
    axes.text(-0.1, row + 0.53, name, ha="right", va="center", fontsize=9, color=INK if seen else FAINT)


def graph_gain(
    config: ModelConfig, launches: float, gpu: str, us_a_launch: float, requests: int = 1
) -> float:
    """Return how many times faster a decode step gets without its launches, by data sheet, at 1,024 tokens each.

    Python launches ahead of the GPU, so a step takes the longer of the two.
    """
    work = time_at(decode_cost(config, 1024, requests), KNOWN_GPUS[gpu], "bfloat16").seconds
    return max(work, launches * us_a_launch * 1e-6) / work


def bound_figure(
    models: Mapping[str, ModelConfig],
    launches: Mapping[str, Callable[[ModelConfig], float]],
    gpu: str,
    us_a_launch: float,
    requests: int,
) -> Picture:
    """Draw the time of a decode step in BF16 by data sheet, and the time that Python takes to launch it.

    `launches` gives, for each way to run a step, the number of launches of a model.
    """
    rows = []
    for name, config in models.items():
        work = time_at(decode_cost(config, 1024, requests), KNOWN_GPUS[gpu], "bfloat16").seconds
        memory = 2 * config.num_parameters + 1024 * requests * config.kv_bytes_per_token(2)
        for way, count in launches.items():
            host = count(config) * us_a_launch * 1e-6
            rows.append((f"{name}, {way}", work, host, memory <= KNOWN_GPUS[gpu].memory_bytes))
    with style():
        figure = Picture(figsize=(9, 1.3 + 0.42 * len(rows)))
        axes = figure.subplots()
        for y, (_, work, host, fits) in enumerate(rows):
            axes.barh(y - 0.17, 1e3 * work, height=0.3, color=DECODE)
            axes.barh(y + 0.17, 1e3 * host, height=0.3, color=WASTE)
            note = f"a graph gives ×{host / work:.2f}" if host > work else "the launches hide: ×1"
            note += "" if fits else " (but it does not fit this GPU)"
            axes.text(1e3 * max(work, host), y, f"  {note}", va="center", fontsize=9.5)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.45e3 * max(max(work, host) for _, work, host, _ in rows))
        axes.set_xlabel("milliseconds per step (calculated, not measured)")
        axes.set_title(f"{gpu}, {requests} request{'s' * (requests > 1)}, {us_a_launch:g} µs per launch")
        handles = [
            Patch(color=DECODE, label="the GPU's work at its data sheet's rates"),
            Patch(color=WASTE, label="launching it, one by one"),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=9.5)
        return figure


def bound_explorer(
    models: Mapping[str, ModelConfig], launches: Mapping[str, Callable[[ModelConfig], float]]
) -> Explorer:
    """Show `bound_figure` under sliders over the GPU, the time of a launch, and the batch."""
    return Explorer(
        partial(bound_figure, models, launches),
        gpu=list(KNOWN_GPUS),
        us_a_launch=(1, 20, 5),
        requests=(1, 256, 1),
    )
