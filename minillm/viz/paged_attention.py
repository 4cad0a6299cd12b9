"""Chapter 04's pictures: which request holds which block, how much memory is wasted, and the cost of the gather.

The memory map is drawn from the records of a run (`LLM(trace=True)`): the block tables and published blocks of each
step. They are checked against the engine's own count of free blocks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import PercentFormatter

from minillm.measure.trace import (
    RequestAdded,
    RequestFinished,
    ScheduledRequest,
    StepRecord,
    Trace,
)
from minillm.viz.style import (
    DECODE,
    FAINT,
    INK,
    KV,
    WASTE,
    Picture,
    end_labels,
    quiet,
    style,
)
from minillm.viz.widget import Explorer

# Paul Tol's "muted" scheme: one colour per request. Colour-blind readers can tell them apart. Only maps use it.
REQUESTS = ("#CC6677", "#44AA99", "#DDCC77", "#332288", "#AA4499", "#117733", "#999933", "#882255")
FREE = "#F3F3F3"


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory after one step: the block table of each request, and the number of its tokens in the cache.

    `known` has the blocks, held or free, that a request with the same first tokens could use.
    """

    step: StepRecord
    tables: Mapping[str, Sequence[int]]
    lengths: Mapping[str, int]
    known: frozenset[int]

    def holders(self) -> dict[int, list[str]]:
        """Return the requests that hold each block; free blocks are left out."""
        found: dict[int, list[str]] = {}
        for name, table in self.tables.items():
            for block in table:
                found.setdefault(block, []).append(name)
        return found

    def filled(self, block_size: int) -> dict[int, int]:
        """Return the number of tokens in each held block."""
        found: dict[int, int] = {}
        for name, table in self.tables.items():
            for index, block in enumerate(table):
                filled = min(block_size, max(0, self.lengths[name] - index * block_size))
                found[block] = max(filled, found.get(block, 0))
        return found


@dataclass
class History:
    """The memory after each step of a run. `read` may be called again while the run goes on.

    Raises ValueError if the block tables of the trace and the engine's count of blocks disagree.
    """

    block_size: int
    steps: list[Memory] = field(default_factory=list)
    requests: dict[str, str] = field(default_factory=dict)  # the colour of each
    total: int = 0
    _records: int = 0
    _finished: set[str] = field(default_factory=set)
    _known: frozenset[int] = frozenset()

    @classmethod
    def of(cls, trace: Trace, block_size: int) -> "History":
        history = cls(block_size)
        history.read(trace)
        return history

    def read(self, trace: Trace) -> None:
        """Read the records that are new since the last call."""
        for record in trace[self._records :]:
            if isinstance(record, RequestAdded):
                self.requests[record.request_id] = REQUESTS[len(self.requests) % len(REQUESTS)]
            elif isinstance(record, RequestFinished):
                self._finished.add(record.request_id)
            elif isinstance(record, StepRecord):
                self._add(record)
        self._records = len(trace)

    def used(self) -> list[int]:
        """Return the number of tokens in the memory after each step; tokens in a shared block count once."""
        return [sum(memory.filled(self.block_size).values()) for memory in self.steps]

    def held(self) -> list[int]:
        """Return the number of slots in the held blocks after each step."""
        return [len(memory.holders()) * self.block_size for memory in self.steps]

    def _add(self, step: StepRecord) -> None:
        if step.blocks is None:
            raise ValueError(
                f"Step {step.step} was computed without a cache, so there is no memory to draw. Use another kv_cache."
            )
        before = self.steps[-1] if self.steps else Memory(step, {}, {}, frozenset())
        here = {part.request_id: part for part in step.scheduled}
        # A request that ended before this step holds nothing. One that ends in this step still holds its blocks.
        gone = self._finished.difference(here) | set(step.preempted)
        self._finished.intersection_update(here)
        tables = {name: table for name, table in before.tables.items() if name not in gone}
        lengths = {name: before.lengths[name] for name in tables}
        lent: set[int] = set()
        for name, part in here.items():
            lent |= _lent(part, tables.get(name), self.block_size)
            tables[name], lengths[name] = part.blocks, part.num_computed_tokens + part.num_tokens
        for name, table in step.idle_tables.items():
            lent |= set(table).difference(before.holders())
            tables[name] = table
            lengths.setdefault(name, 0)
        known = self._known - lent
        memory = Memory(step, tables, lengths, known | frozenset(step.published))
        self.steps.append(memory)
        self.total, self._known = step.blocks.total, memory.known
        held, told = len(memory.holders()), step.blocks.total - step.blocks.free
        if held != told:
            raise ValueError(
                f"Step {step.step}: {held} blocks are in block tables, but the engine counts {told} held blocks."
            )


def _lent(part: ScheduledRequest, before: Sequence[int] | None, block_size: int) -> set[int]:
    """Return the blocks that a request got in this step. Their old content is lost."""
    if before is None:  # admitted or forked: computed tokens came from the prefix cache or the parent
        return set(part.blocks[part.num_computed_tokens // block_size :])
    same = {block for block, old in zip(part.blocks, before, strict=False) if block == old}
    return set(part.blocks) - same


def map_figure(runs: Mapping[str, History], step: int, width: int) -> Picture:
    """Draw the memory of each run after step number `step`, counted from 1, and its use over all steps.

    Each line of a map has `width` slots. A block is as wide as its slots.
    """
    lines = [-(-run.total * run.block_size // width) for run in runs.values()]
    heights = [0.75 + 0.2 * n for n in lines]
    with style():
        figure = Picture(figsize=(9.6, 0.75 + sum(heights)))
        panels = figure.subplots(len(runs), 2, squeeze=False, width_ratios=[3.2, 1], height_ratios=heights)
        for (left, right), (name, run) in zip(panels, runs.items(), strict=True):
            memory = run.steps[step - 1] if step <= len(run.steps) else None
            _draw_map(left, run, memory, width)
            left.set_title(f"{name}, {_state(run, memory)}", fontsize=10)
            _draw_use(right, run, step, max(len(other.steps) for other in runs.values()))
        panels[-1][1].set_xlabel("step")
        figure.legend(handles=_legend(runs.values()), loc="outside lower left", ncols=5, fontsize=9)
        return figure


def _state(run: History, memory: Memory | None) -> str:
    if memory is None:
        return f"done after step {len(run.steps)}"
    used, total = sum(memory.filled(run.block_size).values()), run.total * run.block_size
    step = memory.step
    said = f"step {run.steps.index(memory) + 1}: {step.num_running} run, {step.num_waiting} wait; "
    said += f"{used:,} of {total:,} slots hold a token ({used / total:.0%})"
    return said + (f"; {len(step.preempted)} preempted" if step.preempted else "")


def _draw_map(axes: Axes, run: History, memory: Memory | None, width: int) -> None:
    size, top, high = run.block_size, 0.06, 0.88
    gap = min(0.08 * size, width / 500)
    holders = {} if memory is None else memory.holders()
    filled = {} if memory is None else memory.filled(size)
    known = run.steps[-1].known if memory is None else memory.known
    patches: list[Rectangle] = []
    colors: list[str] = []

    def paint(x: float, y: float, wide: float, high: float, color: str) -> None:
        patches.append(Rectangle((x, y), wide, high))
        colors.append(color)

    for block in range(run.total):
        x, y = block * size % width, block * size // width + top
        names = holders.get(block, [])
        paint(x, y, size - gap, high, WASTE if names else FREE)
        if block in known:
            axes.plot(x + size / 2, y + 0.1, ".", ms=3, color=INK if names else FAINT)
        for i, name in enumerate(names):
            one = high / len(names)
            paint(x, y + i * one, filled[block] * (1 - gap / size), one, run.requests[name])
    axes.add_collection(PatchCollection(patches, facecolors=colors, edgecolors="none"))
    axes.set_xlim(-width / 300, width * 1.003)
    axes.set_ylim(-(-run.total * size // width), 0)
    axes.set_yticks([])
    quiet(axes)
    axes.spines["left"].set_visible(False)


def _draw_use(axes: Axes, run: History, step: int, last: int) -> None:
    """Draw the share of the memory that holds tokens, and the share that is held, over the steps."""
    total, x = run.total * run.block_size, range(1, len(run.steps) + 1)
    used, held = [n / total for n in run.used()], [n / total for n in run.held()]
    axes.fill_between(x, held, color=WASTE, lw=0, step="mid")
    axes.fill_between(x, used, color=KV, lw=0, step="mid")
    axes.axvline(step, color=INK, lw=1)
    axes.set_xlim(0.5, last + 0.5)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_yticks([0, 0.5, 1])


def _legend(runs: Iterable[History]) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = [
        Patch(color=REQUESTS[1], label="tokens (one colour per request)"),
        Patch(color=KV, label="tokens of all requests"),
        Patch(color=WASTE, label="held, empty"),
        Patch(color=FREE, label="free"),
    ]
    if any(run.steps[-1].known for run in runs):
        handles.append(Line2D([], [], color=INK, marker=".", ls="none", label="its prefix can be found"))
    return handles


def map_explorer(runs: Mapping[str, History], width: int, step: int = 1) -> Explorer:
    """Return `map_figure` under a slider over the steps."""
    draw = partial(map_figure, runs, width=width)
    return Explorer(draw, step=(1, max(len(run.steps) for run in runs.values()), step))


Life = tuple[int, int]  # tokens of a request when it begins, and when it ends
Reserve = Callable[[int, int], int]  # (tokens now, tokens at the end) -> tokens that are reserved


def policies(block_size: int, max_model_len: int) -> dict[str, Reserve]:
    """Return, for each way of keeping a cache, the function that gives the tokens reserved for a request."""
    return {
        f"a row of {max_model_len:,} for each": lambda now, end: max_model_len,
        "a row, the next power of two": lambda now, end: 1 << (end - 1).bit_length(),
        "a row of the final length": lambda now, end: end,
        f"blocks of {block_size}": lambda now, end: -(-now // block_size) * block_size,
    }


def utilisation(lives: Sequence[Life], reserve: Reserve) -> float:
    """Return the share of the reserved memory that holds tokens.

    Each request gets one token per step, and its memory is counted in every step of its life.
    """
    moments = [(now, end) for begin, end in lives for now in range(begin, end + 1)]
    return sum(now for now, _ in moments) / sum(reserve(now, end) for now, end in moments)


def expected_waste(mean_length: float, block_size: int) -> float:
    """Return the share of held slots that is empty: (B - 1) / 2 slots of a request's last block, on average."""
    empty = (block_size - 1) / 2
    return empty / (mean_length + empty)


BLOCK_SIZES = [2**i for i in range(10)]


def waste_figure(lives: Sequence[Life], block_size: int, max_model_len: int) -> Picture:
    """Draw the share of reserved memory that holds tokens, and the share that blocks of each size waste."""
    shares = {name: utilisation(lives, r) for name, r in policies(block_size, max_model_len).items()}
    wasted = [
        1 - utilisation(lives, policies(size, max_model_len)[f"blocks of {size}"]) for size in BLOCK_SIZES
    ]
    moments = [now for begin, end in lives for now in range(begin, end + 1)]
    mean = sum(moments) / len(moments)
    with style():
        figure = Picture(figsize=(9.6, 3.2))
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        left.set_title("Share of reserved memory with tokens")
        left.barh(range(4), [1] * 4, color=WASTE, height=0.55)
        left.barh(range(4), list(shares.values()), color=KV, height=0.55)
        for y, share in enumerate(shares.values()):
            left.text(min(share, 0.82) + 0.015, y, f"{share:.1%}", va="center", fontsize=9, weight="bold")
        left.set_yticks(range(4), list(shares))
        left.set_xlim(0, 1)
        left.invert_yaxis()
        left.xaxis.set_major_formatter(PercentFormatter(1))
        right.set_title(f"Wasted in blocks, L = {mean:.0f} tokens")
        right.plot(BLOCK_SIZES, wasted, "o", color=INK, ms=5, label="these requests")
        formula = [expected_waste(mean, size) for size in BLOCK_SIZES]
        right.plot(BLOCK_SIZES, formula, "-", color=FAINT, lw=1.2, label="½(B − 1) / (L + ½(B − 1))")
        right.axhline(0.04, color=FAINT, lw=0.8, ls=":")
        right.text(1, 0.045, "4 %", fontsize=9, color=FAINT, va="bottom")
        if block_size in BLOCK_SIZES:
            right.plot(
                [block_size],
                [wasted[BLOCK_SIZES.index(block_size)]],
                "o",
                ms=11,
                mfc="none",
                mec=DECODE,
                mew=2,
                clip_on=False,
            )
        right.set_xscale("log", base=2)
        right.set_xticks(BLOCK_SIZES[::2], [str(size) for size in BLOCK_SIZES[::2]])
        right.set_ylim(0, None)
        right.yaxis.set_major_formatter(PercentFormatter(1))
        right.set_xlabel("tokens in a block (B)")
        right.legend(loc="upper left", fontsize=9)
        return figure


def waste_explorer(lives: Sequence[Life], max_model_len: int, block_size: int = 16) -> Explorer:
    """Return `waste_figure` under a slider over the block size."""
    sizes = widgets.SelectionSlider(
        options=BLOCK_SIZES,
        value=block_size,
        description="tokens in a block",
        style={"description_width": "11em"},
        layout=widgets.Layout(width="34em"),
    )
    return Explorer(lambda block_size: waste_figure(lives, block_size, max_model_len), block_size=sizes)


def gather_figure(lengths: Sequence[int], ratios: Mapping[int, Sequence[float]]) -> Picture:
    """Draw the time of attention over scattered blocks, in multiples of the time over contiguous rows.

    There is one line per block size.
    """
    with style():
        figure = Picture(figsize=(9, 3.2))
        axes = figure.subplots()
        axes.set_title("Attention over scattered blocks, against contiguous rows")
        ends = {"contiguous rows": 1.0}
        for (size, values), line in zip(ratios.items(), (":", "-", "--"), strict=False):
            axes.plot(lengths, values, line, marker="o", ms=4, color=DECODE)
            ends[f"blocks of {size}"] = values[-1]
        axes.plot(lengths, [1] * len(lengths), color=FAINT, lw=1)
        axes.set_ylabel("times as long")
        axes.set_yscale("log", base=2)
        axes.set_ylim(0.8, 1.3 * max(1.0, *(value for values in ratios.values() for value in values)))
        axes.yaxis.set_major_formatter("×{x:g}")
        axes.set_xscale("log", base=2)
        axes.set_xlim(min(lengths) / 1.2, max(lengths) * 2.6)
        end_labels(axes, lengths[-1], ends)
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.set_xlabel("tokens in a text")
        return figure


def resident_figure(needed: Sequence[float], resident: Mapping[str, Sequence[float]]) -> Picture:
    """Draw the bytes in physical memory after each step of the same requests: one line per cache.

    `needed` has the bytes of the running requests' tokens.
    """
    with style():
        figure = Picture(figsize=(9.6, 3.1))
        axes = figure.subplots()
        axes.set_title("Physical memory of the cache, step by step")
        x = range(1, len(needed) + 1)
        axes.fill_between(
            x, [n / 1e6 for n in needed], color=KV, lw=0, label="keys and values of requests that run"
        )
        for (name, values), line in zip(resident.items(), ("-", "--", ":"), strict=False):
            axes.plot(x, [n / 1e6 for n in values], line, color=INK, label=name)
        axes.set_xlim(1, len(needed))
        axes.set_ylim(0, None)
        axes.set_xlabel("step")
        axes.set_ylabel("MB")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return figure
