"""Chapter 5's pictures: what attention moves through slow memory, the walk over tiles, and the memory it needs.

The walk is drawn from the records of a run (`Tile`); the bytes from formulas that the chapter counts after.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import ipywidgets as widgets
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator
from torch import Tensor

from minillm.viz.style import DECODE, FAINT, INK, KV, PREFILL, WASTE, Picture, end_labels, style
from minillm.viz.widget import Explorer

HEAT = LinearSegmentedColormap.from_list("weights", ["#FFFFFF", PREFILL])


@dataclass(frozen=True, slots=True)
class Tile:
    """What is on the chip after one tile of the walk, for its N queries from `first` and its keys from `start`.

    `p` [N, keys] are the tile's weights exp(s - m); `m` and `l` [N] and `acc` [N, D] the running maximum, sum and
    output; `moved` the bytes read from slow memory and written to it so far.
    """

    first: int
    start: int
    p: Tensor
    m: Tensor
    l: Tensor
    acc: Tensor
    moved: int


# --- bytes ---


def plain_bytes(num_tokens: int, head_dim: int, element: int = 2) -> dict[str, int]:
    """Bytes that one head of attention moves if each of its three steps reads its inputs and writes its result."""
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
    """Bytes that one head moves if a tile of `tile` queries stays on the chip while K and V pass by."""
    firsts = range(0, num_tokens, tile)
    # K and V are read up to the tile of queries' end, on the diagonal, or all of them.
    keys = sum(min(first + tile, num_tokens) if causal else num_tokens for first in firsts)
    row = head_dim * element
    return {"Q read": num_tokens * row, "K, V read": 2 * keys * row, "out written": num_tokens * row}


def bytes_figure(tokens: int, head_dim: int, tile: int) -> Picture:
    """What one head moves, in 16 bits, written out and tiled: matrices of scores, and K and V again and again."""
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
            Patch(color=PREFILL, label="scores and weights, S × S: written and read, twice"),
            Patch(color=KV, label="Q, K, V and the result, S × head_dim"),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2)
        return figure


def bytes_explorer() -> Explorer:
    """`bytes_figure` under sliders."""
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


def walk_figure(tiles: Sequence[Tile], num_tokens: int, plain: int, step: int) -> Picture:
    """The walk of one head after its tile number `step` (from 1): the matrix, one row's sum, the bytes so far.

    `plain` is what the same attention moves when it is written out.
    """
    now = tiles[step - 1]
    row_of_tiles = [tile for tile in tiles if tile.first == now.first]
    # The query to follow: its maximum rises if any does, and its first tile has about half of its final sum.
    begin, end = row_of_tiles[0], row_of_tiles[-1]
    from_half = (begin.l * torch.exp(begin.m - end.m) / end.l - 0.5).abs()
    row = int((from_half + (begin.m == end.m).float()).argmin())
    with style():
        figure = Picture(figsize=(9.6, 4.9))
        grid = figure.add_gridspec(2, 2, width_ratios=[1.1, 1])
        matrix = figure.add_subplot(grid[:, 0])
        _matrix(matrix, tiles[:step], num_tokens, max(len(tile.m) for tile in tiles), row)
        matrix.set_title(f"Tile {step} of {len(tiles)}")
        _running(figure.add_subplot(grid[0, 1]), row_of_tiles, now, row)
        _moved(figure.add_subplot(grid[1, 1]), tiles, plain, step)
        handles = [
            Patch(fc=HEAT(0.7), ec=INK, lw=1.6, label="weights on the chip now"),
            Patch(fc=PREFILL, alpha=0.25, label="computed before, not stored"),
            Patch(fc="none", ec=FAINT, hatch="////", label="never computed: later keys"),
            Patch(color=KV, label="keys and values read now"),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=8.5, columnspacing=1.2)
        return figure


def _matrix(axes: Axes, done: Sequence[Tile], num_tokens: int, size: int, row: int) -> None:
    """The scores that have been on the chip, with the last tile's weights, and where no query looks."""
    now = done[-1]
    for tile in done[:-1]:
        height, width = tile.p.shape
        axes.add_patch(
            Rectangle((tile.start - 0.5, tile.first - 0.5), width, height, fc=PREFILL, alpha=0.25, lw=0)
        )
    height, width = now.p.shape
    extent = (now.start - 0.5, now.start + width - 0.5, now.first + height - 0.5, now.first - 0.5)
    axes.imshow(now.p.sqrt().tolist(), cmap=HEAT, vmin=0, vmax=1, extent=extent, aspect="auto")
    axes.add_patch(Rectangle((extent[0], extent[3]), width, height, fc="none", ec=INK, lw=1.6))
    axes.add_patch(
        Rectangle((extent[0], now.first + row - 0.5), width, 1, fc="none", ec=DECODE, lw=1.6, zorder=4)
    )
    for first in range(0, num_tokens, size):
        for start in range(first + size, num_tokens, size):
            cut = Rectangle((start - 0.5, first - 0.5), size, size, fc="none", ec=WASTE, hatch="////", lw=0.4)
            axes.add_patch(cut)
    axes.plot(
        [extent[0], extent[1]], [-2, -2], color=KV, lw=5, solid_capstyle="butt", clip_on=False, zorder=5
    )
    axes.set_xlim(-0.5, num_tokens - 0.5)
    axes.set_ylim(num_tokens - 0.5, -3.5)
    axes.set_xlabel("key: the token that is looked at")
    axes.set_ylabel("query: the token that looks")


def _running(axes: Axes, row_of_tiles: Sequence[Tile], now: Tile, row: int) -> None:
    """The sum of one query's weights after each tile so far, on the scale of its end, and its maximum as numbers."""
    end, before = row_of_tiles[-1], None
    for i, tile in enumerate(row_of_tiles):
        if tile.start > now.start:
            break
        share = float(tile.l[row] * torch.exp(tile.m[row] - end.m[row]) / end.l[row])
        axes.bar(i, share, width=0.7, color=DECODE, alpha=1.0 if tile is now else 0.45)
        maximum = f"{float(tile.m[row]):.1f}"
        if maximum != before:
            axes.text(i, share + 0.03, maximum, ha="center", fontsize=9)
        before = maximum
    axes.set_title(f"Query {now.first + row}: sum (bars), maximum (numbers)")
    axes.set_xlim(-0.6, len(row_of_tiles) - 0.4)
    ends = [str(tile.start + tile.p.shape[1] - 1) for tile in row_of_tiles]
    axes.set_xticks(range(len(row_of_tiles)), ends)
    axes.set_xlabel("last key seen")
    axes.set_ylim(0, 1.2)
    axes.set_yticks([0, 0.5, 1], ["0", "half", "all"])
    axes.set_ylabel("of the final sum")


def _moved(axes: Axes, tiles: Sequence[Tile], plain: int, step: int) -> None:
    kilobytes = [0.0, *(tile.moved / 1e3 for tile in tiles)]
    steps = range(len(tiles) + 1)
    axes.plot(steps, kilobytes, color=FAINT, lw=1)
    axes.plot(steps[: step + 1], kilobytes[: step + 1], color=DECODE, lw=2)
    axes.plot([step], [kilobytes[step]], "o", color=DECODE)
    axes.axhline(plain / 1e3, color=INK, lw=1.2, ls="--")
    axes.text(0, plain / 1e3, f" written out: {plain / 1e3:.1f} kB", va="bottom", fontsize=9)
    axes.set_title(f"{kilobytes[step]:.1f} kB through slow memory so far")
    axes.set_xlim(0, len(tiles) * 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.3 * max(plain / 1e3, kilobytes[-1]))
    axes.set_xlabel("tiles done")
    axes.set_ylabel("kB moved")


def walk_explorer(
    run: Callable[[int], list[Tile]], sizes: Sequence[int], num_tokens: int, plain: int, size: int, step: int
) -> Explorer:
    """`walk_figure` under two sliders: the tile that the walk is at, and the size of a tile, which starts a new walk.

    `run(size)` walks; it is called once for each size that is looked at.
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
        lambda tile_size, at: walk_figure(walk(tile_size), num_tokens, plain, at), tile_size=choice, at=at
    )


# --- memory and time ---


def memory_figure(lengths: Sequence[int], peaks: Mapping[str, Sequence[int]]) -> Picture:
    """Bytes needed beyond q, k and v, measured, against the length of the text, on logarithmic axes."""
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
    """How many times as fast as attention written out each side is, against the length of the text."""
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
