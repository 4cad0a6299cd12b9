"""Chapter 06's pictures: weights on the numbers of a grid, outliers, formats of 8 bits, quality and speed.

Each is drawn from a model's own weights and activations, or from measurements on it.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import ipywidgets as widgets
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator
from torch import Tensor

from minillm.quantization.absmax import PER_CHANNEL, Grid
from minillm.viz.style import FAINT, INK, PAPER, REJECTED, WASTE, Picture, end_labels, quiet, style
from minillm.viz.widget import Explorer

ACTIVATIONS, WEIGHTS = "#44AA99", "#DDCC77"  # two colours for what is quantised, as in the chapter's drawings
LINES = (FAINT, "#332288", "#117733", REJECTED, INK)  # told apart by shape, colour and brightness
LARGEST_FP8 = 448.0
FORMATS = ("INT8", "FP8")


def relative_error(wanted: Tensor, found: Tensor) -> float:
    """Return the root mean square of the difference, as a share of that of the wanted numbers."""
    return float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def with_outlier(row: Tensor, factor: float) -> tuple[Tensor, int]:
    """Return a copy of the row with its largest weight `factor` times as large, and the column of that weight."""
    changed, column = row.float().clone(), int(row.abs().argmax())
    changed[column] *= factor
    return changed, column


def row_error(row: Tensor, bits: int, group_size: int = PER_CHANNEL, outlier: float = 1.0) -> float:
    """Return the rounding error of a row [in], relative to the weights, its largest weight left out of both.

    That weight is `outlier` times as large as in `row` when the others are rounded.
    """
    changed, column = with_outlier(row, outlier)
    grid = Grid.of(changed[None], bits, group_size)
    rounded = grid.dequantise(grid.round(changed[None]))[0]
    others = torch.arange(len(row)) != column
    return relative_error(changed[others], rounded[others])


def number_line_figure(row: Tensor, bits: int, group_size: int, outlier: float) -> Picture:
    """Draw a row of weights on its grid: all weights on the number line, each column with its range, and the errors."""
    changed, column = with_outlier(row, outlier)
    grid = Grid.of(changed[None], bits, group_size)
    q = grid.round(changed[None])
    error = (grid.dequantise(q)[0] - changed).abs()
    scales, size = grid.scale[0], len(row) // grid.scale.shape[1]
    lowest, highest = (
        -(2 ** (bits - 1)) * scales,
        (2 ** (bits - 1) - 1) * scales,
    )  # the ends of each group's grid
    reach = max(float(changed.abs().max()), float(-lowest.min())) * 1.06
    with style():
        picture = Picture(figsize=(9, 5.6))
        line, weights, errors = picture.subplots(3, 1, height_ratios=[1.15, 1.2, 0.9])
        number = f"{len(scales)} scales" if len(scales) > 1 else "1 scale"
        line.set_title(
            f"{bits} bits, {number}: typical error {row_error(row, bits, group_size, outlier):.2%} of a typical weight"
        )
        _line(line, changed, column, grid, size, reach)
        columns = range(len(row))
        ends = (end.repeat_interleave(size).tolist() for end in (lowest, highest))
        weights.fill_between(columns, *ends, step="mid", color=WEIGHTS, alpha=0.45, lw=0)
        weights.vlines(columns, 0, changed.tolist(), color=INK, lw=0.6)
        weights.set_ylim(-reach, reach)
        weights.set_ylabel("weight")
        weights.set_title(
            "each weight, and in sand the range that its grid covers", fontsize=10, fontweight="normal"
        )
        errors.bar(columns, error.tolist(), width=1.0, color=REJECTED)
        errors.set_ylabel("|error|")
        errors.set_xlabel("column of the row")
        errors.set_title("rounding errors", fontsize=10, fontweight="normal")
        for axes in (weights, errors):
            axes.set_xlim(-0.5, len(row) - 0.5)
        return picture


def _line(axes: Axes, row: Tensor, outlier: int, grid: Grid, size: int, reach: float) -> None:
    """Draw the number line of the group with the largest weight, and of the first other group if there is one."""
    groups = [outlier // size]
    groups += [group for group in range(len(row) // size) if group != groups[0]][:1]
    names = ["group of the\nlargest weight", "another group"] if len(groups) > 1 else ["the row"]
    for place, group in enumerate(groups):
        y = -place
        part = row[group * size : (group + 1) * size]
        numbers = torch.arange(2**grid.bits) - grid.zero[0, group]
        ticks = numbers * grid.scale[0, group]
        axes.vlines(ticks.tolist(), y - 0.34, y, color=FAINT, lw=0.7)
        axes.hlines(y, -reach, reach, color=FAINT, lw=0.5)
        axes.plot(part.tolist(), [y + 0.2] * size, "o", ms=3.5, color=INK, alpha=0.5, mew=0)
    axes.set_yticks([-place for place in range(len(names))], names)
    axes.set_ylim(-len(groups) + 0.5, 0.5)
    axes.set_xlim(-reach, reach)
    axes.set_xlabel("dots: weights; ticks below them: the values that the grid allows")
    axes.tick_params(axis="y", length=0)


def number_line(row: Tensor, *, bits: int = 4) -> Explorer:
    """Return `number_line_figure` with sliders for the bits, the columns that share a scale, and the outlier."""
    sizes = [(f"whole row ({len(row)})", len(row))]
    sizes += [(str(size), size) for size in (256, 128, 64, 32) if size < len(row) and len(row) % size == 0]
    words = {"style": {"description_width": "11em"}, "layout": widgets.Layout(width="34em")}
    group = widgets.SelectionSlider(options=sizes, value=len(row), description="columns per scale", **words)
    return Explorer(
        lambda bits, group_size, outlier: number_line_figure(row, bits, group_size, outlier),
        bits=(2, 8, bits),
        group_size=group,
        outlier=(1.0, 8.0, 1.0),
    )


def groups_figure(errors: Mapping[str, Sequence[float]], sharing: Sequence[str]) -> Picture:
    """Draw the rounding error of each matrix against the weights that share a scale; the last matrix stands out."""
    with style():
        picture = Picture(figsize=(8, 3.4))
        axes = picture.subplots()
        for (name, values), look in zip(errors.items(), cycle(("o-", "s--", "^:", "D-."))):
            color = REJECTED if name == list(errors)[-1] else FAINT
            axes.plot(range(len(sharing)), [100 * v for v in values], look, color=color, label=name)
        axes.set_xticks(range(len(sharing)), list(sharing))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("weights that share a scale")
        axes.set_ylabel("rounding error (% of the weights)")
        axes.set_title("8 bits: the error of each matrix of one layer")
        axes.legend(loc="upper right")
        return picture


def fp8_numbers() -> Tensor:
    """Return the positive numbers of float8_e4m3fn, in order [126] float32."""
    return torch.arange(1, 127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()


def formats_figure(weight: Tensor, *, zoom: float = 1 / 16) -> Picture:
    """Draw the positive values of INT8 and FP8, as shares of the largest, above the weights [out, in] of a matrix.

    Right: the part near zero, up to `zoom`. Each weight is shown as a share of the largest of its row.
    """
    shares = (weight.abs() / weight.abs().amax(1, keepdim=True).clamp_min(1e-30)).flatten()
    numbers = {"INT8": torch.arange(1, 128) / 127.5, "FP8": fp8_numbers() / LARGEST_FP8}
    with style():
        picture = Picture(figsize=(9, 3.6))
        panels = picture.subplots(3, 2, height_ratios=[0.6, 0.6, 1.2], sharex="col")
        for column, end in enumerate((1.0, zoom)):
            for axes, (name, values) in zip(panels[:, column], numbers.items(), strict=False):
                inside = values[values <= end]
                axes.vlines(inside.tolist(), 0, 1, color=INK, lw=0.8)
                where = "" if column == 0 else f" up to 1/{round(1 / zoom)}"
                axes.set_title(f"{name}: {len(inside)} positive values{where}", fontsize=10)
                axes.set_yticks([])
                axes.tick_params(axis="x", length=0)
            part = shares[shares <= end]
            panels[2, column].hist(part.numpy(), bins=60, range=(0, end), color=WEIGHTS)
            panels[2, column].set_title(f"{len(part) / len(shares):.0%} of the weights", fontsize=10)
            panels[2, column].set_yticks([])
            panels[2, column].set_xlim(0, end)
            panels[2, column].set_xlabel("share of the largest weight of the row")
        return picture


def peaks(rows: Tensor) -> Tensor:
    """Return for each row of [rows, n] its largest number, divided by the root mean square of the others."""
    squares = rows.float().square()
    largest = squares.amax(1)
    others = (squares.sum(1) - largest) / (rows.shape[1] - 1)
    return (largest / others.clamp_min(1e-30)).sqrt()


def bell(size: int, peak: float) -> Tensor:
    """Return `size` normally distributed numbers, and one that is `peak` times as large as the typical one."""
    numbers = torch.randn(size, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    numbers /= numbers.square().mean().sqrt()
    return torch.cat([numbers.clamp(-peak, peak), torch.tensor([peak])])


def format_errors(numbers: Tensor) -> dict[str, float]:
    """Return the rounding error of a row [n] in INT8 and in FP8, with its largest number left out as in `row_error`."""
    scale = numbers.abs().max() / LARGEST_FP8
    fp8 = (numbers / scale).to(torch.float8_e4m3fn).float() * scale
    others = torch.arange(len(numbers)) != int(numbers.abs().argmax())
    return {"INT8": row_error(numbers, 8), "FP8": relative_error(numbers[others], fp8[others])}


def crossing_figure(
    ratios: Sequence[float], errors: Sequence[Mapping[str, float]], real: Mapping[str, float]
) -> Picture:
    """Draw the errors of INT8 and FP8 against `peaks`; `real` marks the peaks of a model's own rows."""
    with style():
        picture = Picture(figsize=(8, 3.4))
        axes = picture.subplots()
        for name, line in zip(FORMATS, ("-", "--"), strict=True):
            axes.plot(ratios, [100 * one[name] for one in errors], line, color=INK, lw=1.8)
        axes.set_xscale("log", base=2)
        axes.set_xlim(ratios[0], ratios[-1] * 1.25)
        top = 100 * max(one["INT8"] for one in errors)
        axes.set_ylim(0, 1.05 * top)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("largest number of a row, divided by the root mean square of the others")
        axes.set_ylabel("rounding error (%)")
        axes.set_title("One scale for a row: INT8 suffers from an outlier, FP8 does not")
        end_labels(axes, ratios[-1], {name: 100 * errors[-1][name] for name in FORMATS})
        for place, (name, ratio) in enumerate(real.items()):
            axes.axvline(ratio, color=WASTE, lw=1, zorder=0)
            card = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
            axes.text(ratio * 1.03, top * (0.98 - 0.1 * place), name, fontsize=9, va="top", bbox=card)
        return picture


def channels_figure(sides: Mapping[str, tuple[Tensor, Tensor]]) -> Picture:
    """Draw the largest |x| of each channel over the largest |w| of its column, for several versions of one layer."""
    with style():
        picture = Picture(figsize=(9.4, 3.9))
        panels = picture.subplots(2, len(sides), sharex=True, sharey="row", squeeze=False)
        for column, (name, (x_max, w_max)) in enumerate(sides.items()):
            top, bottom = panels[:, column]
            ratio = float(x_max.max() / x_max.median())
            top.set_title(f"{name}:\nlargest / median {ratio:.1f}", fontsize=10)
            for axes, values, colour in ((top, x_max, ACTIVATIONS), (bottom, w_max, WEIGHTS)):
                axes.bar(range(len(values)), values.tolist(), width=1.0, color=colour)
                axes.set_yscale("log")
                axes.set_xlim(-0.5, len(values) - 0.5)
            bottom.set_xlabel("input channel")
        panels[0, 0].set_ylabel("largest |x|")
        panels[1, 0].set_ylabel("largest |w|")
        return picture


def quality_figure(scores: Mapping[str, tuple[float, float]]) -> Picture:
    """Draw the KL divergence (nats per token) and the share of tokens whose first choice changes, for each model."""
    with style():
        picture = Picture(figsize=(9, 0.9 + 0.42 * len(scores)))
        left, right = picture.subplots(1, 2, sharey=True)
        names = list(scores)
        for axes, title, values, form in (
            (left, "KL divergence (nats per token)", [kl for kl, _ in scores.values()], "{:.5f}"),
            (
                right,
                "first choices that change",
                [100 * changed for _, changed in scores.values()],
                "{:.1f} %",
            ),
        ):
            axes.barh(range(len(names)), values, color=REJECTED, height=0.55)
            for row, value in enumerate(values):
                axes.text(value, row, " " + form.format(value), va="center", fontsize=9)
            axes.set_title(title, fontsize=10)
            axes.set_xlim(0, max(values) * 1.35 or 1)
            quiet(axes)
        left.set_yticks(range(len(names)), names)
        left.invert_yaxis()
        return picture


def rows_figure(rows: Sequence[int], seconds: Mapping[str, Sequence[float]], title: str) -> Picture:
    """Draw the speed of each product relative to the first one, against the rows of x (the tokens of a step)."""
    (_, base), *others = seconds.items()
    with style():
        picture = Picture(figsize=(8, 3.6))
        axes = picture.subplots()
        fastest = 1.0
        for place, (name, times) in enumerate(others):
            speed = [a / b for a, b in zip(base, times, strict=True)]
            line, color = ("o-", "s--", "^:", "D-.", "v-")[place % 5], LINES[place % 5]
            axes.plot(rows, speed, line, color=color, lw=1.6, label=name)
            fastest = max(fastest, *speed)
        axes.axhspan(0, 1, color=WASTE, alpha=0.3, lw=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(rows), [str(n) for n in rows])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(rows[0] / 1.2, rows[-1] * 1.2)
        axes.set_ylim(0, 1.12 * fastest)
        axes.set_xlabel("rows of x: tokens in the step (grey: slower than float)")
        axes.set_ylabel("speed, float = 1")
        axes.set_title(title)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return picture


def bytes_figure(weights: Mapping[str, float], bandwidth: float, device: str) -> Picture:
    """Draw the bytes of a model's weights in several formats, and the time in which `device` reads them once.

    `bandwidth` is in bytes per second.
    """
    with style():
        picture = Picture(figsize=(8, 0.8 + 0.42 * len(weights)))
        axes = picture.subplots()
        for row, size in enumerate(weights.values()):
            axes.barh(row, size / 1e9, color=WEIGHTS, height=0.6)
            text = f" {size / 1e9:.1f} GB, read in {1e3 * size / bandwidth:.1f} ms"
            axes.text(size / 1e9, row, text, va="center", fontsize=9)
        axes.set_yticks(range(len(weights)), list(weights))
        axes.invert_yaxis()
        axes.set_xlim(0, 1.35 * max(weights.values()) / 1e9)
        axes.set_title(f"The weights of a decode step on {device}")
        quiet(axes)
        return picture
