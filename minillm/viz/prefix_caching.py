"""Chapter 9's pictures: the tree of known prefixes in each step, and the effect of hits on the time to first token.

The tree is drawn from a trace (`LLM(trace=True)`) and the prompts' tokens: which blocks a request found, which it
computed and published, and which were evicted. The other pictures are drawn from measured numbers.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle

from minillm.llm import LLM
from minillm.measure.trace import (
    Kind,
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
    PREFILL,
    SMALLEST,
    WASTE,
    Picture,
    ink_on,
    printable,
    style,
)
from minillm.viz.widget import Explorer

State = Literal["hit", "prefill", "decode", "used", "kept", "evicted", "empty"]
Prefix = tuple[int, ...]  # a node of the tree: all tokens of a text up to the end of one of its blocks
ROW = 0.8  # inches per row of the tree
WORDS = 11.5  # points: the size of the text in a box
KEPT = "#D3ECFA"  # KV, thinner: the content is there, and no request holds it
FILL: dict[State, str] = {
    "hit": KV,
    "prefill": PREFILL,
    "decode": DECODE,
    "used": KV,
    "kept": KEPT,
    "evicted": "#FFFFFF",
    "empty": "#FFFFFF",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """The cache in one step. `nodes` has each prefix that was ever known: (block, state); an evicted one has block -1.

    `pool` is the state of each block that is not empty. A block without a known prefix is "used" there.
    """

    step: StepRecord
    nodes: dict[Prefix, tuple[int, State]]
    pool: dict[int, State]

    @property
    def num_kept(self) -> int:
        """Free blocks that still held a known prefix when the step was scheduled."""
        return sum(state == "kept" for state in self.pool.values())


def replay(trace: Trace, prompts: Mapping[str, Sequence[int]], block_size: int) -> list[Moment]:
    """Return what the cache held in each step of a trace. `prompts` are the tokens of each request, by its id.

    A forked sample is seen from its first own step on. Raises KeyError for a request whose prompt is not given.
    """
    texts = {name: list(ids) for name, ids in prompts.items()}
    tables: dict[str, list[int]] = {}
    known: dict[int, Prefix] = {}
    seen: dict[Prefix, None] = {}
    finished: list[str] = []
    moments = []
    for record in trace:
        if isinstance(record, TokenRecord):
            texts[record.request_id].append(record.token_id)
        elif isinstance(record, RequestFinished):
            finished.append(record.request_id)
        elif isinstance(record, StepRecord):
            here = {part.request_id for part in record.scheduled}
            for name in {*record.preempted, *finished} - here:  # gone before this step
                tables.pop(name, None)
            for part in record.scheduled:
                _take(known, part, tables.get(part.request_id, ()), block_size)
                tables[part.request_id] = part.blocks
            hits = _hits(record.scheduled, block_size)
            used = {block for table in tables.values() for block in table}
            new = _published(record, texts, block_size)
            pool: dict[int, State] = {block: "used" if block in used else "kept" for block in {*known, *used}}
            for block in hits:
                pool[block] = "hit"
            for block, (_, kind) in new.items():
                pool[block] = "decode" if kind == "decode" else "prefill"
            known |= {block: prefix for block, (prefix, _) in new.items()}
            seen |= dict.fromkeys(known.values())
            places = {prefix: block for block, prefix in known.items()}
            moments.append(Moment(record, {p: _node(places.get(p), pool) for p in seen}, pool))
            for name in finished:  # a step's record comes after what ended in it
                tables.pop(name, None)
            finished = []
    return moments


def _hits(scheduled: Sequence[ScheduledRequest], block_size: int) -> set[int]:
    return {block for part in scheduled for block in part.blocks[: part.num_cached_tokens // block_size]}


def _take(known: dict[int, Prefix], part: ScheduledRequest, table: Sequence[int], block_size: int) -> None:
    """Forget the content of the blocks that a request got since its last `table`: it writes into them."""
    for block in set(part.blocks[part.num_computed_tokens // block_size :]) - set(table):
        known.pop(block, None)


def _published(
    record: StepRecord, texts: Mapping[str, Sequence[int]], block_size: int
) -> dict[int, tuple[Prefix, Kind]]:
    """Return the blocks that a step published, each with its prefix and the kind of work that filled it."""
    found: dict[int, tuple[Prefix, Kind]] = {}
    for part in record.scheduled:
        for i, block in enumerate(part.blocks):
            if block in record.published and block not in found:
                found[block] = (tuple(texts[part.request_id][: (i + 1) * block_size]), part.kind)
    return found


def _node(block: int | None, pool: Mapping[int, State]) -> tuple[int, State]:
    return (-1, "evicted") if block is None else (block, pool[block])


def layout(prefixes: Sequence[Prefix], block_size: int) -> dict[Prefix, tuple[int, int]]:
    """Return (column, row) of each node. The column is its depth, and a first child is in its parent's row.

    So a run of blocks in one row, with no branch between them, is one edge of a radix tree.
    """
    children: dict[Prefix, list[Prefix]] = {}
    for prefix in prefixes:
        children.setdefault(prefix[:-block_size], []).append(prefix)
    places: dict[Prefix, tuple[int, int]] = {}
    row, stack = -1, list(reversed(children.get((), [])))
    while stack:
        prefix = stack.pop()
        column, parent = len(prefix) // block_size - 1, prefix[:-block_size]
        first = column > 0 and children[parent][0] is prefix
        row = row if first else row + 1
        places[prefix] = (column, places[parent][1] if first else row)
        stack += reversed(children.get(prefix, []))
    return places


def tree_figure(
    moments: Sequence[Moment], step: int, block_size: int, text: Callable[[Prefix], str]
) -> Picture:
    """Draw the known prefixes in step number `step` (from 1), one box per block, and the blocks of the pool below.

    `text` turns tokens into the words of a box. The boxes have the places that they have in the last moment's tree.
    """
    moment = moments[step - 1]
    places = layout(list(moments[-1].nodes), block_size)
    columns = 1 + max((column for column, _ in places.values()), default=0)
    rows = 1 + max((row for _, row in places.values()), default=0)
    height = 1.75 + ROW * rows
    with (
        style(),
        rc_context({"figure.constrained_layout.use": False}),
    ):  # the places are known, and it is slow
        figure = Picture(figsize=(9.6, height))
        tree = figure.add_axes((0.01, 1.12 / height, 0.98, ROW * rows / height))
        tree.set_title("\n".join(_sentences(moment.step)), fontsize=12)
        tree.set_xlim(-0.14, columns)
        tree.set_ylim(rows - 0.5, -0.5)
        tree.axis("off")
        tree.text(-0.1, 0, "root", rotation=90, ha="center", va="center", fontsize=WORDS)
        for prefix, place in places.items():
            if prefix in moment.nodes:
                _box(tree, place, *moment.nodes[prefix], text(prefix[-block_size:]), columns)
                _edge(tree, places.get(prefix[:-block_size], (-1, 0)), place)
        _pool(figure.add_axes((0.01, 0.46 / height, 0.98, 0.38 / height)), moment)
        figure.legend(
            handles=_legend(),
            loc="lower left",
            ncols=6,
            fontsize=9.5,
            borderaxespad=0.3,
            columnspacing=0.9,
            handletextpad=0.5,
            handlelength=1.6,
        )
        return figure


def _sentences(step: StepRecord) -> list[str]:
    """Return a line for a step's first request, and one for the second or for the number of further ones."""
    lines = []
    for part in step.scheduled:
        what = f"step {step.step + 1}, request {part.request_id}: "
        if part.kind == "decode":
            lines.append(what + f"a decode, token {part.num_computed_tokens + part.num_tokens} of its text")
        else:
            lines.append(what + f"{part.num_cached_tokens} tokens from the cache, {part.num_tokens} computed")
    return lines if len(lines) < 3 else [lines[0], f"and {len(lines) - 1} more requests"]


def _box(axes: Axes, place: tuple[int, int], block: int, state: State, text: str, columns: int) -> None:
    (x, y), gone = place, state == "evicted"
    look = {"lw": 2.4, "ec": INK} if state == "hit" else {"lw": 0.8, "ec": WASTE if gone else FAINT}
    box = FancyBboxPatch(
        (x + 0.02, y - 0.38), 0.93, 0.76, boxstyle="round,pad=0,rounding_size=0.06", fc=FILL[state], **look
    )
    box.set_linestyle("--" if gone else "-")
    axes.add_patch(box)
    color = FAINT if gone else ink_on(FILL[state])
    lines = textwrap.wrap(printable(text) or "·", width=max(8, 86 // columns), max_lines=3, placeholder=" …")
    axes.text(
        x + 0.06,
        y,
        "\n".join(lines),
        va="center",
        fontsize=WORDS,
        color=color,
        linespacing=1.05,
        parse_math=False,
    )
    if not gone:
        axes.text(x + 0.92, y + 0.34, f"{block}", va="bottom", ha="right", fontsize=SMALLEST, color=color)


def _edge(axes: Axes, parent: tuple[int, int], child: tuple[int, int]) -> None:
    x, start, end = parent[0] + 0.985, parent[1], child[1]
    axes.plot([x - 0.04, x, x, x + 0.04], [start, start, end, end], color=FAINT, lw=1, zorder=0)


def _pool(axes: Axes, moment: Moment) -> None:
    """Draw one cell per block, from block 0."""
    counts = moment.step.blocks
    total = counts.total if counts else 1 + max(moment.pool, default=0)
    for block in range(total):
        state = moment.pool.get(block, "empty")
        hit = state == "hit"
        cell = Rectangle(
            (block + 0.06, 0), 0.88, 1, fc=FILL[state], ec=INK if hit else WASTE, lw=2 if hit else 0.6
        )
        axes.add_patch(cell)
        if total <= 40:
            ink: dict[str, Any] = {
                "fontsize": SMALLEST,
                "color": FAINT if state == "empty" else ink_on(FILL[state]),
            }
            axes.text(block + 0.5, 0.5, f"{block}", ha="center", va="center", zorder=4, **ink)
    axes.set_xlim(-0.05, total + 0.05)
    axes.set_ylim(-0.1, 1.15)
    axes.set_title(f"the pool: {total} blocks", fontsize=10.5, fontweight="normal", pad=2)
    axes.axis("off")


def _legend() -> list[Patch]:
    return [
        Patch(fc=KV, ec=INK, lw=2, label="found now: a hit"),
        Patch(color=PREFILL, label="computed now, prefill"),
        Patch(color=DECODE, label="filled by a decode"),
        Patch(color=KV, label="in use"),
        Patch(color=KEPT, label="free, can still be found"),
        Patch(fc="#FFFFFF", ec=WASTE, ls="--", label="evicted"),
    ]


def tree_explorer(llm: LLM, prompts: Mapping[str, Sequence[int]]) -> Explorer:
    """Return `tree_figure` with a slider over all steps that `llm` has traced."""
    size = llm.config.block_size
    moments = replay(llm.trace, prompts, size)
    return Explorer(
        lambda step: tree_figure(moments, step, size, _decoder(llm)), step=(1, len(moments), len(moments))
    )


def _decoder(llm: LLM) -> Callable[[Prefix], str]:
    if llm.tokenizer is None:
        return lambda ids: " ".join(map(str, ids))
    decode = llm.tokenizer.decode
    return lambda ids: decode(list(ids))


def repeats_figure(computed: Sequence[int], new: Sequence[int]) -> Picture:
    """Draw one bar per request: the tokens that its prefill computed, and how many of them were new."""
    again = [all_ - some for all_, some in zip(computed, new, strict=True)]
    with style():
        figure = Picture(figsize=(9, 1.5 + 0.22 * len(computed)))
        axes = figure.subplots()
        axes.set_title(f"{sum(again):,} of {sum(computed):,} computed tokens had been computed before")
        y = range(len(computed))
        axes.barh(
            y, again, color=WASTE, height=0.75, label="computed again: the same tokens after the same tokens"
        )
        axes.barh(y, new, left=again, color=PREFILL, height=0.75, label="new")
        axes.invert_yaxis()
        axes.set_yticks([])
        axes.set_ylabel("request")
        axes.set_xlabel("tokens computed by the prefill")
        figure.legend(loc="outside lower left", ncols=2)
        return figure


def ttft_figure(cold: Sequence[float], primed: Sequence[float], prompt: int, shared: int) -> Picture:
    """Draw the seconds to the first token of `prompt` tokens, without and with the first `shared` in the cache."""
    ratio = median(cold) / median(primed)
    with style():
        figure = Picture(figsize=(9, 2.5))
        axes = figure.subplots()
        axes.set_title(
            f"{prompt} tokens in, {shared} of them shared: the first token comes {ratio:.1f} times sooner"
        )
        for row, (times, color) in enumerate(((cold, PREFILL), (primed, KV))):
            ms = [time * 1e3 for time in times]
            axes.barh(row, median(ms), color=color, height=0.5, alpha=0.55)
            axes.plot(ms, [row] * len(ms), "o", ms=5, color=color, mec=INK, mew=0.6)
            axes.text(max(ms), row, f"  median {median(ms):.1f} ms", va="center", fontsize=9)
        axes.set_yticks([0, 1], ["cache off", "prefix in the cache"])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, max(*cold, *primed) * 1.3e3)
        axes.set_xlabel("time to first token (ms), one dot per request")
        return figure


def difference_figure(
    positions: Sequence[int], cached: Sequence[int], prompt: int, seconds: Sequence[float], block_size: int
) -> Picture:
    """Draw one bar per place at which a prompt of `prompt` tokens first differs: its cached and computed tokens."""
    with style():
        figure = Picture(figsize=(9, 1.5 + 0.33 * len(positions)))
        axes = figure.subplots()
        axes.set_title(f"A prompt of {prompt} tokens that differs from the last one at one token")
        y = range(len(positions))
        axes.barh(y, cached, color=KV, height=0.66, label="from the cache")
        computed = [prompt - n for n in cached]
        axes.barh(y, computed, left=cached, color=PREFILL, height=0.66, label="computed again")
        axes.plot(positions, y, "x", color=INK, ms=6, mew=1.6, clip_on=False, label="the token that differs")
        for row, (n, time) in enumerate(zip(cached, seconds, strict=True)):
            axes.text(prompt, row, f"   {n:3} cached, {time * 1e3:.0f} ms", va="center", fontsize=9)
        axes.set_yticks(y, [f"token {p}" for p in positions])
        axes.tick_params(axis="y", length=0, pad=9)  # next to a cross at 0
        axes.invert_yaxis()
        axes.set_xlim(0, prompt * 1.25)
        axes.set_xticks(range(0, prompt, 8 * block_size))
        axes.set_xlabel(f"tokens of the prompt (a tick every {8 * block_size}: 8 blocks)")
        figure.legend(loc="outside lower left", ncols=3)
        return figure


def pool_figure(
    sizes: Sequence[int], rates: Mapping[str, Sequence[float]], working_set: int, num_requests: int
) -> Picture:
    """Draw the share of prompt tokens from the cache against the size of the pool, for several orders of requests."""
    with style():
        figure = Picture(figsize=(9, 3.2))
        axes = figure.subplots()
        axes.set_title(f"{num_requests} requests over one set of prefixes, by the pool's size")
        for (name, values), (color, mark) in zip(rates.items(), ((KV, "o-"), (INK, "s-")), strict=True):
            axes.plot(sizes, [100 * value for value in values], mark, ms=5, color=color, label=name)
        axes.axvline(working_set, color=FAINT, lw=1)
        axes.text(working_set, 104, f" working set: {working_set} blocks", fontsize=9, color=FAINT)
        axes.set_ylim(-4, 112)
        axes.set_yticks(range(0, 101, 25))
        axes.set_xlabel("blocks in the pool")
        axes.set_ylabel("prompt tokens\nfrom the cache (%)")
        axes.legend(loc="upper left")
        return figure
