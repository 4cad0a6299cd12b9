"""The pictures of chapter 05: the bytes that attention moves through slow memory, the walk over tiles, the memory.

The walk is drawn from the records of a run (`Tile`). The bytes come from formulas that the chapter checks by counting.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import ipywidgets as widgets
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullLocator
from torch import Tensor

from minillm.viz.style import (
    DECODE,
    FAINT,
    INK,
    KV,
    PAPER,
    PREFILL,
    WASTE,
    Picture,
    end_labels,
    printable,
    quiet,
    style,
)
from minillm.viz.widget import Explorer

HEAT = LinearSegmentedColormap.from_list("weights", ["#FFFFFF", PREFILL])


@dataclass(frozen=True, slots=True)
class Tile:
    """The state on the chip after one tile of the walk, for its N queries from `first` and its keys from `start`.

    `scores` [N, keys] are those of the tile, -inf for a key that the query does not see. `m` and `l` [N] and `acc`
    [N, D] are the running maximum, sum and output. `moved` is the number of bytes read from slow memory and written to
    it so far.
    """

    first: int
    start: int
    scores: Tensor
    m: Tensor
    l: Tensor
    acc: Tensor
    moved: int

    @property
    def keys(self) -> int:
        """Return the number of keys."""
        return self.scores.shape[1]


# --- bytes ---


def plain_bytes(num_tokens: int, head_dim: int, element: int = 2) -> dict[str, int]:
    """Return the bytes that one head moves if each of its three steps reads its inputs and writes its result."""
    row, matrix = num_tokens * head_dim * element, num_tokens**2 * element
    return {
        "Q, K, V read": 3 * row,
        "scores written": matrix,
        "scores read": matrix,
        "weights written": matrix,
        "weights read": matrix,
        "out written": row,
    }


def tiled_bytes(
    num_tokens: int, head_dim: int, tile: int, element: int = 2, *, causal: bool = True
) -> dict[str, int]:
    """Return the bytes that one head moves if a tile of `tile` queries stays on the chip while K and V are read."""
    firsts = range(0, num_tokens, tile)
    # K and V are read up to the tile of queries' end, on the diagonal, or all of them.
    keys = sum(min(first + tile, num_tokens) if causal else num_tokens for first in firsts)
    row = head_dim * element
    return {"Q read": num_tokens * row, "K, V read": 2 * keys * row, "out written": num_tokens * row}


def bytes_figure(tokens: int, head_dim: int, tile: int) -> Picture:
    """Draw the bytes that one head moves in 16 bits, written out and in tiles that read K and V many times."""
    sides = {"written out": plain_bytes(tokens, head_dim), "tiled": tiled_bytes(tokens, head_dim, tile)}
    unit, size = (1e6, "MB") if max(sum(side.values()) for side in sides.values()) > 1e6 else (1e3, "kB")
    with style():
        figure = Picture(figsize=(9, 2.5))
        axes = figure.subplots()
        totals = [sum(side.values()) for side in sides.values()]
        factor = totals[0] / totals[1]
        verdict = f"×{factor:.1f} less" if factor >= 1 else f"×{1 / factor:.1f} more"
        axes.set_title(f"{tokens:,} tokens, head_dim {head_dim}, tiles of {tile}: tiling moves {verdict}")
        for y, side in enumerate(sides.values()):
            left = 0.0
            for name, amount in side.items():
                color = PREFILL if name.startswith(("scores", "weights")) else KV
                axes.barh(y, amount / unit, left=left, height=0.5, color=color, edgecolor="white", lw=0.8)
                left += amount / unit
            axes.text(left, y, f" {left:,.2f} {size}", va="center", fontsize=9)
        axes.set_yticks(range(2), list(sides))
        axes.set_ylim(1.5, -0.5)
        axes.set_xlim(0, 1.2 * max(totals) / unit)
        axes.set_xlabel(f"{size} through slow memory, one head")
        axes.xaxis.set_major_formatter("{x:,g}")
        handles = [
            Patch(color=PREFILL, label="S and P, T × T: each is written once and read once"),
            Patch(color=KV, label="Q, K, V and the result, T × head_dim"),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2)
        return figure


def bytes_explorer() -> Explorer:
    """Return `bytes_figure` with sliders."""
    look = {"style": {"description_width": "11em"}, "layout": widgets.Layout(width="34em")}

    def choice(name: str, values: Sequence[int], value: int) -> widgets.Widget:
        options = [(f"{n:,}", n) for n in values]
        return widgets.SelectionSlider(options=options, value=value, description=name, **look)

    return Explorer(
        bytes_figure,
        tokens=choice("tokens", [2**i for i in range(5, 16)], 4096),
        head_dim=choice("head dim", [32, 64, 128, 256], 128),
        tile=choice("queries in a tile", [2**i for i in range(2, 9)], 128),
    )


# --- the walk ---


def walk_figure(tiles: Sequence[Tile], words: Sequence[str], plain: int, step: int) -> Picture:
    """Draw the walk of one head after its tile number `step` (from 1).

    On the left is the matrix of scores, on the right the online softmax of one of its rows, and the bytes so far.
    `words` has the text of each token. `plain` is the number of bytes that the same attention moves written out.
    """
    now = tiles[step - 1]
    row_of_tiles = [tile for tile in tiles if tile.first == now.first]
    row = _row_to_follow(row_of_tiles)
    with style():
        figure = Picture(figsize=(9.8, 5.2))
        grid = figure.add_gridspec(2, 2, width_ratios=[1.05, 1], height_ratios=[1.6, 1])
        _matrix(figure.add_subplot(grid[:, 0]), tiles[:step], len(words), max(len(t.m) for t in tiles), row)
        _number_line(figure.add_subplot(grid[0, 1]), row_of_tiles, now, row, words)
        _moved(figure.add_subplot(grid[1, 1]), tiles, plain, step)
        figure.suptitle(
            f"Tile {step} of {len(tiles)}: queries {now.first}–{now.first + len(now.m) - 1}, "
            f"keys {now.start}–{now.start + now.keys - 1}",
            fontsize=12,
            fontweight="bold",
        )
        handles = [
            Patch(fc=HEAT(0.7), ec=INK, lw=1.6, label="on the chip now"),
            Patch(fc=PREFILL, alpha=0.25, label="computed before, thrown away"),
            Patch(fc="none", ec=FAINT, hatch="////", label="never computed"),
            Patch(color=DECODE, label="Q tile, stays"),
            Patch(color=KV, label="K and V tile, read now"),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=5, fontsize=8.5, columnspacing=1.0)
        return figure


def _row_to_follow(row_of_tiles: Sequence[Tile]) -> int:
    """Return the query whose maximum rises most often, and of these one whose first tile has about half of the sum.

    If no maximum rises, return the last one, which sees the most keys.
    """
    begin, end = row_of_tiles[0], row_of_tiles[-1]
    from_half = (begin.l * torch.exp(begin.m - end.m) / end.l - 0.5).abs()  # at most 0.5
    rises = sum(((after.m > before.m).float() for before, after in pairwise(row_of_tiles)), torch.zeros(()))
    later = torch.arange(len(from_half)) * 1e-6
    return int((from_half - rises - later).argmin())


def _matrix(axes: Axes, done: Sequence[Tile], num_tokens: int, size: int, row: int) -> None:
    """Draw the scores that have been on the chip, the last tile's weights, and the part that no query sees."""
    now = done[-1]
    for tile in done[:-1]:
        corner = (tile.start - 0.5, tile.first - 0.5)
        axes.add_patch(Rectangle(corner, tile.keys, len(tile.m), fc=PREFILL, alpha=0.25, ec="white", lw=1.2))
    height, left, top = len(now.m), now.start - 0.5, now.first - 0.5
    weights = torch.exp(now.scores - now.m[:, None])
    extent = (left, left + now.keys, top + height, top)
    axes.imshow(weights.sqrt().tolist(), cmap=HEAT, vmin=0, vmax=1, extent=extent, aspect="auto")
    axes.add_patch(Rectangle((left, top), now.keys, height, fc="none", ec=INK, lw=1.8))
    axes.add_patch(Rectangle((left, top + row), now.keys, 1, fc="none", ec=DECODE, lw=1.6, zorder=4))
    for first in range(0, num_tokens, size):
        for start in range(first + size, num_tokens, size):
            cut = Rectangle((start - 0.5, first - 0.5), size, size, fc="none", ec=WASTE, hatch="////", lw=0.4)
            axes.add_patch(cut)
    strip = 0.035 * num_tokens
    axes.add_patch(Rectangle((left, -0.5 - 1.6 * strip), now.keys, strip, fc=KV, lw=0))
    axes.add_patch(Rectangle((-0.5 - 1.6 * strip, top), strip, height, fc=DECODE, lw=0))
    axes.set_xlim(-0.5 - 2 * strip, num_tokens - 0.5)
    axes.set_ylim(num_tokens - 0.5, -0.5 - 2 * strip)
    axes.set_xlabel("key (token that is looked at)")
    axes.set_ylabel("query (token that looks)")


def _number_line(axes: Axes, row_of_tiles: Sequence[Tile], now: Tile, row: int, words: Sequence[str]) -> None:
    """Draw the weight of each score of one query so far, relative to the maximum so far, and the sum in numbers."""
    seen = [tile for tile in row_of_tiles if tile.start <= now.start]
    m, l = float(now.m[row]), float(now.l[row])
    for tile in seen:
        color, order = (PREFILL, 3) if tile is now else (WASTE, 2)
        scores = [score for score in tile.scores[row].tolist() if score > -math.inf]
        axes.vlines(scores, 0, [math.exp(score - m) for score in scores], color=color, lw=3, zorder=order)
        axes.plot(scores, [0] * len(scores), "o", ms=4, color=color, zorder=order, clip_on=False)
    lines = {"m": m}
    query = now.first + row
    name = f"Query {query} ({printable(words[query]) or 'begin'!r})"
    title = f"{name}: m = {m:.2f}"
    text = f"l = {l:.3f}, all from this tile"
    if len(seen) > 1:
        before = seen[-2]
        old_m, old_l = float(before.m[row]), float(before.l[row])
        fade = math.exp(old_m - m)
        if old_m < m:
            lines = {"old m": old_m, "m": m}
            title = f"{name}: m rises from {old_m:.2f} to {m:.2f}"
        else:
            title += ", as before"
        text = f"l = {old_l:.3f} · {fade:.3f} + {l - old_l * fade:.3f} = {l:.3f}"
    for label, at in lines.items():
        axes.axvline(at, color=INK if label == "m" else FAINT, lw=1.2, ls="--")
        axes.text(at, 1.06, label, ha="right" if label == "old m" else "left", va="bottom", fontsize=9)
    back = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}
    axes.text(0.02, 0.93, text, transform=axes.transAxes, va="top", fontsize=9.5, bbox=back)
    axes.set_title(title, pad=20, fontsize=10.5)
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("exp(score - m)")
    axes.set_xlabel("score (orange: this tile, grey: earlier tiles)")


def _moved(axes: Axes, tiles: Sequence[Tile], plain: int, step: int) -> None:
    """Draw the bytes so far, those of the whole walk, and those of attention written out, as bars."""
    so_far, whole = tiles[step - 1].moved / 1e3, tiles[-1].moved / 1e3
    axes.barh(0, whole, height=0.55, fc="none", ec=KV, lw=1.2)
    axes.barh(0, so_far, height=0.55, color=KV)
    axes.barh(1, plain / 1e3, height=0.55, color=WASTE)
    axes.text(whole, 0, f" {so_far:.1f} of {whole:.1f} kB", va="center", fontsize=9)
    axes.text(plain / 1e3, 1, f" {plain / 1e3:.1f} kB", va="center", fontsize=9)
    axes.set_yticks([0, 1], ["in tiles", "written out"])
    axes.set_ylim(1.6, -0.6)
    axes.set_xlim(0, 1.45 * max(plain / 1e3, whole))
    axes.set_title("Bytes through slow memory so far", fontsize=10.5)
    quiet(axes)


def walk_explorer(
    run: Callable[[int], list[Tile]],
    sizes: Sequence[int],
    words: Sequence[str],
    plain: int,
    size: int,
    step: int,
) -> Explorer:
    """Return `walk_figure` with two sliders: the current tile of the walk, and the size of a tile.

    A new size starts a new walk. `run(size)` returns the walk, and is called once for each chosen size.
    """
    walk = cache(run)
    look = {"style": {"description_width": "11em"}, "layout": widgets.Layout(width="34em")}
    at = widgets.IntSlider(value=step, min=1, max=len(walk(size)), description="tile of the walk", **look)
    choice = widgets.SelectionSlider(options=list(sizes), value=size, description="size of a tile", **look)

    def new_walk(change: Mapping[str, int]) -> None:
        at.max = len(walk(change["new"]))
        at.disabled = at.max == 1  # there is nothing to step through

    choice.observe(new_walk, names="value")
    return Explorer(
        lambda tile_size, at: walk_figure(walk(tile_size), words, plain, at), tile_size=choice, at=at
    )


# --- memory and time ---


def memory_figure(lengths: Sequence[int], peaks: Mapping[str, Sequence[int]]) -> Picture:
    """Draw the measured bytes needed in addition to q, k and v, by the length of the text, on logarithmic axes."""
    colors = [FAINT, PREFILL, KV, DECODE]
    with style():
        figure = Picture(figsize=(9, 3.4))
        axes = figure.subplots()
        ends: dict[str, float] = {}
        for (name, bytes_), color in zip(peaks.items(), colors, strict=False):
            megabytes = [max(size, 1e4) / 1e6 for size in bytes_]
            axes.plot(lengths, megabytes, "o-", ms=5, color=color)
            ends[f"{name}: {megabytes[-1]:,.1f} MB"] = megabytes[-1]
        _tokens_axis(axes, lengths)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlim(lengths[0] * 0.9, lengths[-1] * 2.6)
        end_labels(axes, lengths[-1], ends)
        axes.set_title("Memory beyond Q, K and V, at its peak")
        axes.set_ylabel("MB")
        return figure


def speed_figure(lengths: Sequence[int], ratios: Mapping[str, Sequence[float]]) -> Picture:
    """Draw the speed of each side as a multiple of attention written out, by the length of the text."""
    colors = [KV, DECODE]  # as in the picture of the memory
    with style():
        figure = Picture(figsize=(9, 3.2))
        axes = figure.subplots()
        ends = {"written out: ×1": 1.0}
        for (name, values), color in zip(ratios.items(), colors, strict=False):
            axes.plot(lengths, values, "o-", ms=5, color=color)
            ends[f"{name}: ×{values[-1]:.1f}"] = values[-1]
        axes.plot(lengths, [1] * len(lengths), color=FAINT, lw=1)
        _tokens_axis(axes, lengths)
        axes.set_xlim(lengths[0] * 0.9, lengths[-1] * 2.6)
        axes.set_ylim(0, 1.15 * max(1.2, *(max(values) for values in ratios.values())))
        end_labels(axes, lengths[-1], ends)
        axes.set_title("Speed, as a multiple of attention written out")
        axes.set_ylabel("times as fast")
        return figure


def _tokens_axis(axes: Axes, lengths: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("tokens")
