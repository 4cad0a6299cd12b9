"""Chapter 4's pictures: who holds which block of the memory, what is wasted, and what the gather costs.

The memory map is drawn from the records of a run (`LLM(trace=True)`): block tables, copies and published blocks, step
by step. What it shows is checked against the engine's own count of free blocks.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

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
    TokenRecord,
    Trace,
)
from minillm.viz.style import (
    DECODE,
    FAINT,
    INK,
    KV,
    PAPER,
    SMALLEST,
    WASTE,
    Picture,
    end_labels,
    ink_on,
    printable,
    quiet,
    style,
)
from minillm.viz.widget import Explorer, Live

# Paul Tol's "muted" scheme: one colour a request, told apart by the colour-blind. Only maps of requests use it.
REQUESTS = ("#CC6677", "#44AA99", "#DDCC77", "#332288", "#AA4499", "#117733", "#999933", "#882255")
FREE = "#F3F3F3"
Say = Callable[[list[int]], str]  # a tokenizer's `decode`


@dataclass(frozen=True, slots=True)
class Memory:
    """Who held what in one step: each request's block table, and its tokens in the cache when the step was done.

    `known` are the blocks, held or free, that a request with the same first tokens could use. `written` has for each
    block the last request in whose table it was, and its place there. `copies` has for each block that was copied for
    a write, as long as it is held, the block that it was copied from.
    """

    step: StepRecord
    tables: Mapping[str, Sequence[int]]
    lengths: Mapping[str, int]
    known: frozenset[int]
    written: Mapping[int, tuple[str, int]]
    copies: Mapping[int, int]

    def holders(self) -> dict[int, list[str]]:
        """The requests in whose table each held block stands."""
        found: dict[int, list[str]] = {}
        for name, table in self.tables.items():
            for block in table:
                found.setdefault(block, []).append(name)
        return found

    def filled(self, block_size: int) -> dict[int, int]:
        """The tokens in each held block; a shared block's are counted once."""
        found: dict[int, int] = {}
        for name, table in self.tables.items():
            for index, block in enumerate(table):
                found[block] = min(block_size, max(0, self.lengths[name] - index * block_size))
        return found


@dataclass
class History:
    """The memory after each step of a run. `read` may be called again while the run goes on.

    Raises ValueError if the block tables of the trace and the engine's count of blocks disagree.
    """

    block_size: int
    steps: list[Memory] = field(default_factory=list)
    requests: dict[str, str] = field(default_factory=dict)  # the colour of each
    tokens: dict[str, list[int]] = field(default_factory=dict)  # of each request: prompt and output
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
        """Go on from where the last call stopped."""
        for record in trace[self._records :]:
            if isinstance(record, RequestAdded):
                self.requests[record.request_id] = REQUESTS[len(self.requests) % len(REQUESTS)]
                self.tokens[record.request_id] = list(record.prompt_token_ids)
            elif isinstance(record, TokenRecord):
                self.tokens[record.request_id].append(record.token_id)
            elif isinstance(record, RequestFinished):
                self._finished.add(record.request_id)
            elif isinstance(record, StepRecord):
                self._add(record)
        self._records = len(trace)

    def used(self) -> list[int]:
        """Tokens in the memory, step by step."""
        return [sum(memory.filled(self.block_size).values()) for memory in self.steps]

    def ids(self, memory: Memory, block: int) -> list[int]:
        """Return the token ids in a block that is held or known."""
        name, place = memory.written[block]
        first = place * self.block_size
        count = memory.filled(self.block_size).get(block, self.block_size)  # known blocks are full
        return self.tokens[name][first : first + count]

    def held(self) -> list[int]:
        """Tokens for which there is room in the blocks that are held."""
        return [len(memory.holders()) * self.block_size for memory in self.steps]

    def _add(self, step: StepRecord) -> None:
        if step.blocks is None:
            raise ValueError(f"step {step.step} was computed without a cache: there is no memory to draw")
        before = self.steps[-1] if self.steps else Memory(step, {}, {}, frozenset(), {}, {})
        here = {part.request_id: part for part in step.scheduled}
        # What ended in an earlier step, or was aborted since, holds nothing; what ends in this one still does.
        gone = self._finished.difference(here) | set(step.preempted)
        self._finished.intersection_update(here)
        tables = {name: table for name, table in before.tables.items() if name not in gone}
        lengths = {name: before.lengths[name] for name in tables}
        lent: set[int] = set()
        for name, part in here.items():
            lent |= _lent(part, tables.get(name), self.block_size)
            tables[name], lengths[name] = part.blocks, part.num_computed_tokens + part.num_tokens
        known = self._known - lent
        written = {block: (name, i) for name, table in tables.items() for i, block in enumerate(table)}
        copies = {to: source for to, source in before.copies.items() if to in written and to not in lent}
        copies |= {to: source for source, to in step.copied}
        memory = Memory(
            step, tables, lengths, known | frozenset(step.published), {**before.written, **written}, copies
        )
        self.steps.append(memory)
        self.total, self._known = step.blocks.total, memory.known
        held, told = len(memory.holders()), step.blocks.total - step.blocks.free
        if held != told:
            raise ValueError(
                f"step {step.step}: {held} blocks stand in block tables, and the engine counts {told}"
            )


def _lent(part: ScheduledRequest, before: Sequence[int] | None, block_size: int) -> set[int]:
    """The blocks that were given to a request in this step, and so lost what they held."""
    if before is None:  # admitted or forked: what is computed came from the prefix cache or the parent
        return set(part.blocks[part.num_computed_tokens // block_size :])
    same = {block for block, old in zip(part.blocks, before, strict=False) if block == old}
    return set(part.blocks) - same


def map_figure(runs: Mapping[str, History], step: int, width: int) -> Picture:
    """The memory of each run at step number `step` (from 1), `width` tokens a line, and its use over all steps.

    A block is as wide as its tokens.
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
    """The share of the memory that holds tokens, and the share that is held, over the steps."""
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
    """`map_figure` under a slider over the steps."""
    draw = partial(map_figure, runs, width=width)
    return Explorer(draw, step=(1, max(len(run.steps) for run in runs.values()), step))


def blocks_figure(history: History, step: int, say: Say, columns: int = 6) -> Picture:
    """Each block at step number `step` (from 1): its number, the requests that hold it, and the words in it.

    A block that several requests hold has a label of each and a thick frame. A block that was copied for a write has
    a dashed frame and the number of the original.
    """
    memory = history.steps[step - 1]
    lines = -(-history.total // columns)
    with style():
        figure = Picture(figsize=(9.6, 1.15 + 0.66 * lines))
        axes = figure.subplots()
        axes.set_title(_state(history, memory), fontsize=10)
        holders, filled = memory.holders(), memory.filled(history.block_size)
        for block in range(history.total):
            corner = (block % columns, block // columns)
            held_by = {name: history.requests[name] for name in holders.get(block, [])}
            words = ""
            if held_by or block in memory.known:
                words = printable(say(history.ids(memory, block)))
            _box(axes, corner, held_by, memory.copies.get(block))
            _head(axes, corner, block, block in memory.known, held_by, memory.copies.get(block))
            lines_of_words = textwrap.wrap(words, width=122 // columns, max_lines=2, placeholder=" …")
            x, y = corner
            axes.text(
                x + 0.05,
                y + 0.57,
                "\n".join(lines_of_words),
                va="center",
                fontsize=9,
                color=INK if held_by else FAINT,
                parse_math=False,
            )
            if held_by:
                _gauge(axes, corner, filled[block] / history.block_size)
        axes.set_xlim(0, columns)
        axes.set_ylim(lines, 0)
        axes.axis("off")
        figure.legend(handles=_block_legend(), loc="outside lower left", ncols=3, fontsize=9)
        return figure


def _box(axes: Axes, corner: tuple[int, int], held_by: Mapping[str, str], copied_from: int | None) -> None:
    """The frame of a block, over one stripe in a pale colour for each request that holds it."""
    x, y = corner
    for i, color in enumerate(held_by.values()):
        high = 0.9 / len(held_by)
        stripe = Rectangle((x + 0.02, y + 0.05 + i * high), 0.96, high, fc=color, alpha=0.22, lw=0)
        axes.add_patch(stripe)
    look: dict[str, Any] = {"fc": "none" if held_by else FREE, "ec": "none"}
    if copied_from is not None:
        look |= {"ec": INK, "lw": 1.6, "ls": "--"}
    elif len(held_by) > 1:
        look |= {"ec": INK, "lw": 2.2}
    axes.add_patch(Rectangle((x + 0.02, y + 0.05), 0.96, 0.9, **look))


def _head(
    axes: Axes,
    corner: tuple[int, int],
    block: int,
    known: bool,
    held_by: Mapping[str, str],
    copied_from: int | None,
) -> None:
    """The first line in a block: its number, the one that it was copied from, and a label for each request."""
    x, y = corner
    number = f"{block} •" if known else f"{block}"
    if copied_from is not None:
        number += f" copy of {copied_from}"
    ink: dict[str, Any] = {"color": INK if held_by else FAINT, "va": "center"}
    axes.text(x + 0.05, y + 0.2, number, fontsize=SMALLEST, weight="bold" if held_by else "normal", **ink)
    wide = min(0.2, 0.75 / max(1, len(held_by)))
    for i, (name, color) in enumerate(held_by.items()):
        left = x + 0.96 - wide * (len(held_by) - i)
        axes.add_patch(Rectangle((left, y + 0.1), wide * 0.94, 0.21, fc=color, lw=0))
        if len(name) <= 3 and wide > 0.14:
            axes.text(
                left + wide * 0.47,
                y + 0.2,
                name,
                ha="center",
                va="center_baseline",
                fontsize=SMALLEST,
                color=ink_on(color),
            )


def _gauge(axes: Axes, corner: tuple[int, int], share: float) -> None:
    """The line at the bottom of a block: how many of its slots hold a token."""
    x, y = corner
    axes.add_patch(Rectangle((x + 0.05, y + 0.84), 0.9, 0.05, fc=WASTE, lw=0))
    axes.add_patch(Rectangle((x + 0.05, y + 0.84), 0.9 * share, 0.05, fc=DECODE, lw=0))


def _block_legend() -> list[Patch | Line2D]:
    return [
        Patch(fc=REQUESTS[1], label="a request; 0.1 is sample 1 of request 0"),
        Patch(fc=PAPER, ec=INK, lw=2.2, label="shared: in several block tables"),
        Patch(fc=PAPER, ec=INK, lw=1.6, ls="--", label="copied for a write"),
        Line2D([], [], color=DECODE, lw=3, label="slots that hold a token"),
        Line2D([], [], color=WASTE, lw=3, label="empty slots"),
        Line2D([], [], color=INK, marker=".", ms=6, ls="none", label="full, and its prefix can be found"),
    ]


def blocks_explorer(history: History, say: Say, step: int = 1) -> Explorer:
    """`blocks_figure` under a slider over the steps."""
    return Explorer(
        lambda step: blocks_figure(history, step, say), step=(1, max(1, len(history.steps)), step)
    )


def live_blocks(trace: Trace | None, block_size: int, say: Say, every: int = 1) -> Live:
    """Return the blocks of a run that is under way, drawn once every `every` steps."""
    history = History(block_size)

    def draw(so_far: Trace) -> Picture:
        history.read(so_far)
        return blocks_figure(history, len(history.steps), say)

    return Live(draw, trace, every)


Life = tuple[int, int]  # tokens of a request when it begins, and when it ends
Reserve = Callable[[int, int], int]  # (tokens now, tokens at the end) -> tokens that are reserved


def policies(block_size: int, max_model_len: int) -> dict[str, Reserve]:
    """What is reserved for a request by each way of keeping its cache."""
    return {
        f"a row of {max_model_len:,} for each": lambda now, end: max_model_len,
        "a row, the next power of two": lambda now, end: 1 << (end - 1).bit_length(),
        "a row, its length foreseen": lambda now, end: end,
        f"blocks of {block_size}": lambda now, end: -(-now // block_size) * block_size,
    }


def utilisation(lives: Sequence[Life], reserve: Reserve) -> float:
    """The share of the reserved memory that holds tokens, over the lives of these requests, a token a step."""
    moments = [(now, end) for begin, end in lives for now in range(begin, end + 1)]
    return sum(now for now, _ in moments) / sum(reserve(now, end) for now, end in moments)


def expected_waste(mean_length: float, block_size: int) -> float:
    """The share of the blocks' memory that is empty: the last one of a request lacks (B - 1) / 2 tokens on average."""
    empty = (block_size - 1) / 2
    return empty / (mean_length + empty)


BLOCK_SIZES = [2**i for i in range(10)]


def waste_figure(lives: Sequence[Life], block_size: int, max_model_len: int) -> Picture:
    """The memory that these requests reserve and use, and what of a block cache is wasted by size of the block."""
    shares = {name: utilisation(lives, r) for name, r in policies(block_size, max_model_len).items()}
    wasted = [
        1 - utilisation(lives, policies(size, max_model_len)[f"blocks of {size}"]) for size in BLOCK_SIZES
    ]
    moments = [now for begin, end in lives for now in range(begin, end + 1)]
    mean = sum(moments) / len(moments)
    with style():
        figure = Picture(figsize=(9.6, 3.2))
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        left.set_title("Reserved memory, and what of it holds tokens")
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
    """`waste_figure` under a slider over the block size."""
    sizes = widgets.SelectionSlider(
        options=BLOCK_SIZES,
        value=block_size,
        description="tokens in a block",
        style={"description_width": "11em"},
        layout=widgets.Layout(width="34em"),
    )
    return Explorer(lambda block_size: waste_figure(lives, block_size, max_model_len), block_size=sizes)


def gather_figure(lengths: Sequence[int], ratios: Mapping[int, Sequence[float]]) -> Picture:
    """The time of attention over scattered blocks as a multiple of that over contiguous rows: a line per block size."""
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
        axes.set_ylim(0, 1.15 * max(1.0, *(value for values in ratios.values() for value in values)))
        axes.set_xscale("log", base=2)
        axes.set_xlim(min(lengths) / 1.2, max(lengths) * 2.6)
        end_labels(axes, lengths[-1], ends)
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.set_xlabel("tokens in a text")
        return figure


def resident_figure(needed: Sequence[float], resident: Mapping[str, Sequence[float]]) -> Picture:
    """Bytes in physical memory, measured after each step of the same requests: one line a cache, its name on it.

    `needed` is what the tokens of the requests that run take.
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
