"""The pictures of chapter 07: what few bits cost, a word of 4-bit numbers, GPTQ's steps, AWQ's scales, the KV cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, NullLocator
from torch import Tensor

from minillm.config import ModelConfig
from minillm.viz.style import (
    ACCEPTED,
    DECODE,
    FAINT,
    INK,
    KV,
    PAPER,
    PREFILL,
    WASTE,
    Picture,
    end_labels,
    quiet,
    style,
)
from minillm.viz.widget import Explorer

METHODS = {"RTN": FAINT, "GPTQ": DECODE, "AWQ": PREFILL}
MARKS = {32: "^", 64: "s", 128: "o"}  # by group size
CHANGE = LinearSegmentedColormap.from_list("change", [DECODE, PAPER, PREFILL], N=25)
WIDE: dict[str, Any] = {"style": {"description_width": "11em"}, "layout": widgets.Layout(width="34em")}


class Scores(Protocol):
    """How far a model is from its float reference: KL in nats per token, agreement as a share, and its perplexity."""

    @property
    def kl(self) -> float: ...
    @property
    def agreement(self) -> float: ...
    @property
    def perplexity(self) -> float: ...


def bits_figure(scores: Mapping[int, Scores]) -> Picture:
    """Draw KL and agreement of a model by the bits of its weights."""
    with style():
        figure = Picture(figsize=(8.6, 2.9))
        left, right = figure.subplots(1, 2)
        names, places = [f"{bits}" for bits in scores], range(len(scores))
        left.bar(places, [score.kl for score in scores.values()], color=FAINT, width=0.6)
        right.bar(places, [100 * score.agreement for score in scores.values()], color=FAINT, width=0.6)
        for axes, texts in (
            (left, [f"{score.kl:.4f}" for score in scores.values()]),
            (right, [f"{score.agreement:.1%}" for score in scores.values()]),
        ):
            for bar, text in zip(axes.patches, texts, strict=True):
                assert isinstance(bar, Rectangle)
                axes.text(bar.get_x() + 0.3, bar.get_height(), text, ha="center", va="bottom", fontsize=9)
            axes.set_xticks(places, names)
            axes.set_xlabel("bits per weight, groups of 128, round to nearest")
            axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
            axes.set_yticks([])
        left.set_title("KL to the float model (nats per token)")
        right.set_title("Tokens with the same most likely token")
        return figure


# --- a word of 4-bit numbers ---


def word_figure(packed: Tensor, weights: Tensor, scale: float, number: int) -> Picture:
    """Draw word `number // 8` of packed 4-bit numbers bit by bit, and how number `number` becomes a weight.

    `packed` is uint8 [n / 2]; `weights` [n] are the floats that the numbers stand for, with one `scale`.
    """
    first = number // 8 * 8
    chunk = [int(byte) for byte in packed[first // 2 : first // 2 + 4]]
    word = int.from_bytes(bytes(chunk), "little")
    place = number - first
    q = word >> 4 * place & 15
    with style():
        figure = Picture(figsize=(9.2, 3.3), layout="none")
        axes = figure.add_axes((0.01, 0.0, 0.98, 1.0))
        axes.set_xlim(0, 33)
        axes.set_ylim(0, 9.4)
        axes.axis("off")
        axes.text(
            0.5, 8.9, f"Word {first // 8}, 0x{word:08X}: weights {first + 7} to {first}", fontweight="bold"
        )
        for bit in range(32):
            x, here = 0.5 + 31 - bit, bit // 4 == place
            color = PREFILL if here else KV if bit // 4 % 2 else PAPER
            axes.add_patch(Rectangle((x, 5.2), 1, 1.3, fc=color, ec=FAINT, lw=0.6))
            axes.text(x + 0.5, 5.85, str(word >> bit & 1), ha="center", va="center", fontsize=10, color=INK)
        for at in range(8):
            middle = 0.5 + 4 * (7 - at) + 2
            value = word >> 4 * at & 15
            axes.text(middle, 7.9, f"q = {value}", ha="center", va="center", fontsize=9.5)
            weight = (value - 8) * scale
            axes.text(middle, 7.0, f"{weight:+.3f}", ha="center", va="center", fontsize=9, color=FAINT)
        for at, byte in enumerate(chunk):
            text = f"byte {at}: {byte}"
            axes.text(0.5 + 8 * (3 - at) + 4, 4.5, text, ha="center", va="center", fontsize=9, color=FAINT)
        lines = (
            f"shift by 4 · {place} bits:  word >> {4 * place} = {word >> 4 * place:,}",
            f"keep four bits:  {word >> 4 * place:,} & 15 = {q}",
            f"zero and scale:  ({q} - 8) · {scale:.5f} = {(q - 8) * scale:+.5f}",
        )
        for row, text in enumerate(lines):
            axes.text(0.5, 3.4 - row, text, va="center", fontsize=10)
        was = float(weights[number])
        axes.text(19.5, 2.9, f"weight {number} was {was:+.5f}", va="center", fontsize=10)
        off = abs((q - 8) * scale - was)
        axes.text(19.5, 1.9, f"error {off:.5f}, {off / scale:.2f} of the scale", va="center", fontsize=10)
        return figure


def word_explorer(packed: Tensor, weights: Tensor, scale: float) -> Explorer:
    """Return `word_figure` with a slider over the weights."""
    packed, weights = packed.cpu(), weights.float().cpu()
    slider = widgets.IntSlider(value=2, min=0, max=len(weights) - 1, description="weight", **WIDE)
    return Explorer(lambda weight: word_figure(packed, weights, scale, weight), weight=slider)


# --- GPTQ ---


@dataclass(frozen=True)
class Walk:
    """A run of GPTQ over some rows of a matrix: `steps[j]` [rows, in] are the weights after column j is fixed.

    `start` are the weights before, `scale` [rows, in] the step of each weight's grid, `rounded` the weights rounded to
    nearest, and `hessian` [in, in] the mean of x x^T over the inputs.
    """

    start: Tensor
    scale: Tensor
    rounded: Tensor
    steps: Sequence[Tensor]
    hessian: Tensor

    def errors(self, nearest: bool = False) -> list[float]:
        """Return the relative error of the outputs after each column, in per cent: of GPTQ, or of RTN."""
        total = float(((self.start @ self.hessian) * self.start).sum())
        found = []
        for j, step in enumerate(self.steps):
            now = step
            if nearest:
                now = self.start.clone()
                now[:, : j + 1] = self.rounded[:, : j + 1]
            off = now - self.start
            found.append(100 * float(((off @ self.hessian) * off).sum()) / total)
        return found


def rolling_figure(walk: Walk, gptq: Sequence[float], rtn: Sequence[float], row: int, column: int) -> Picture:
    """Draw GPTQ after it has fixed `column`: one row in detail, all rows as a map, the outputs' errors so far."""
    with style():
        figure = Picture(figsize=(9.6, 5.4))
        grid = figure.add_gridspec(2, 2, width_ratios=[1.55, 1], height_ratios=[1.25, 1])
        _row(figure.add_subplot(grid[0, :]), walk, row, column)
        _map(figure.add_subplot(grid[1, 0]), walk, row, column)
        axes = figure.add_subplot(grid[1, 1])
        for errors, color in ((rtn, METHODS["RTN"]), (gptq, METHODS["GPTQ"])):
            axes.plot(range(1, len(errors) + 1), errors, color=color, lw=0.7, alpha=0.5)
            axes.plot(range(1, column + 2), errors[: column + 1], color=color, lw=2.2)
            axes.plot(column + 1, errors[column], "o", color=color, ms=5)
        axes.set_title(f"Output error: RTN {rtn[column]:.2f} %, GPTQ {gptq[column]:.2f} %", fontsize=10)
        axes.set_xlabel("columns fixed")
        axes.set_ylim(0, 1.1 * max(rtn))
        axes.set_ylabel("% of the output")
        return figure


def _row(axes: Axes, walk: Walk, row: int, column: int) -> None:
    """Draw how far 32 weights of a row around `column` are from where they began, and the fixed ones' numbers."""
    width = walk.start.shape[1]
    first = max(0, min(column - 12, width - 32))
    start, scale, now = walk.start[row], walk.scale[row], walk.steps[column][row]
    before = walk.steps[column - 1][row] if column else start
    for k in range(first, min(first + 32, width)):
        change = float((now[k] - start[k]) / scale[k])
        color = PREFILL if k == column else ACCEPTED if k < column else DECODE
        axes.plot([k, k], [0, change], color=color, lw=3 if k == column else 1.6, zorder=2)
        axes.plot(k, change, "s" if k <= column else "o", color=color, ms=6, zorder=3)
        if k <= column:
            number = f"{float(now[k] / scale[k]):.0f}".replace("-0", "0")
            axes.text(k, -1.62, number, ha="center", va="center", fontsize=8.5)
    rolled = float((before[column] - start[column]) / scale[column])
    error = float((before[column] - now[column]) / scale[column])
    axes.set_title(
        f"Row {row}, column {column}: {rolled:+.2f} has rolled in, the number is "
        f"{float(now[column] / scale[column]):.0f}, an error of {error:+.2f} "
        + ("rolls on" if column < len(now) - 1 else "stays")
    )
    axes.axhline(0, color=FAINT, lw=0.8, zorder=1)
    axes.set_xlim(first - 0.8, first + 31.8)
    axes.set_ylim(-1.9, 1.5)
    axes.set_yticks([-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("column (bottom row: the fixed numbers q - 8)")
    axes.set_ylabel("change / scale")


def _map(axes: Axes, walk: Walk, row: int, column: int) -> None:
    """Draw how far each weight of all rows is from where it began."""
    change = ((walk.steps[column] - walk.start) / walk.scale).tolist()
    axes.imshow(change, cmap=CHANGE, norm=TwoSlopeNorm(0, -1, 1), aspect="auto", interpolation="nearest")
    axes.axvline(column + 0.5, color=INK, lw=1)
    axes.annotate(
        "", (-0.5, row), (-9, row), arrowprops={"arrowstyle": "-|>", "color": INK}, annotation_clip=False
    )
    axes.set_yticks([])
    axes.set_ylabel("rows")
    axes.set_xlabel("column: left of the line fixed, right of it still floats")
    axes.set_title("Change of each weight (white: none)", fontsize=10)


def rolling_explorer(walk: Walk, row: int, column: int) -> Explorer:
    """Return `rolling_figure` with sliders for the column and the row."""
    gptq, rtn = walk.errors(), walk.errors(nearest=True)
    rows, columns = walk.start.shape
    at = widgets.IntSlider(value=column, min=0, max=columns - 1, description="column", **WIDE)
    which = widgets.IntSlider(value=row, min=0, max=rows - 1, description="row", **WIDE)
    return Explorer(lambda column, row: rolling_figure(walk, gptq, rtn, row, column), column=at, row=which)


# --- AWQ ---


def salient_figure(sides: Mapping[str, Tensor], number: int) -> Picture:
    """Draw the mean |input| [in] of each channel for each side, and mark the `number` largest."""
    with style():
        figure = Picture(figsize=(9.2, 3.4))
        for axes, (name, inputs) in zip(
            figure.subplots(1, len(sides), squeeze=False)[0], sides.items(), strict=True
        ):
            x, salient = inputs.tolist(), set(inputs.topk(number).indices.tolist())
            colors = [PREFILL if channel in salient else WASTE for channel in range(len(x))]
            axes.vlines(range(len(x)), 0, x, color=colors, lw=1.6)
            for channel in salient:
                axes.plot(channel, x[channel], "o", color=PREFILL, ms=5)
            axes.set_title(name)
            axes.set_xlabel("input channel")
            axes.set_ylabel("mean |x|")
            axes.set_ylim(0, None)
            axes.margins(x=0.02)
            largest, typical = float(inputs.max()), float(inputs.median())
            axes.text(
                0.98,
                0.96,
                f"largest: {largest / typical:.1f} × median",
                transform=axes.transAxes,
                ha="right",
                va="top",
            )
        return figure


def alpha_figure(losses: Mapping[str, Sequence[float]]) -> Picture:
    """Draw each side's loss against alpha, relative to that of alpha = 0, and mark the smallest."""
    with style():
        figure = Picture(figsize=(8.6, 3.4))
        axes = figure.subplots()
        ends = {}
        for (name, values), color in zip(losses.items(), (FAINT, PREFILL), strict=False):
            ratio = [value / values[0] for value in values]
            alphas = [step / len(ratio) for step in range(len(ratio))]
            best = min(range(len(ratio)), key=ratio.__getitem__)
            axes.plot(alphas, ratio, "o-", color=color, ms=4)
            axes.plot(alphas[best], ratio[best], "o", mfc="none", mec=INK, ms=11)
            ends[f"{name}: {ratio[best]:.2f} at α = {alphas[best]:.2f}"] = ratio[-1]
        axes.axhline(1, color=WASTE, lw=1, zorder=0)
        axes.set_xlim(-0.03, 1.62)
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        axes.spines["bottom"].set_bounds(-0.03, 1)
        axes.set_ylim(0, None)
        end_labels(axes, 0.95, ends)
        axes.set_xlabel("α: the factors f are (mean |x|) to the power of α")
        axes.set_ylabel("output error, 1 = not scaled")
        axes.set_title("AWQ's search: the ring is the smallest error")
        return figure


def ladder_figure(kl: Mapping[str, float], title: str) -> Picture:
    """Draw the KL of each variant as a bar with its number. A name that begins with "scaled" is in AWQ's colour."""
    with style():
        figure = Picture(figsize=(8.6, 0.5 + 0.32 * len(kl)))
        axes = figure.subplots()
        for y, (name, value) in enumerate(kl.items()):
            color = PREFILL if name.startswith(("scaled", "AWQ")) else KV if "float" in name else FAINT
            axes.barh(y, value, color=color, height=0.68)
            axes.text(value, y, f" {value:.4f}", va="center", fontsize=9)
        axes.set_yticks(range(len(kl)), list(kl))
        axes.set_ylim(len(kl) - 0.5, -0.5)
        axes.set_xlim(0, 1.12 * max(kl.values()))
        axes.set_title(title)
        quiet(axes)
        return figure


# --- all methods, and the cache ---


@dataclass(frozen=True)
class Point:
    """One quantised model: its method, bits and group size, the bytes of its weights, and its scores."""

    method: str
    bits: int
    group: int
    nbytes: float
    scores: Scores


def methods_figure(points: Sequence[Point], reference: Scores) -> Picture:
    """Draw KL, agreement and perplexity of each quantised model against the bytes of its weights."""
    with style():
        figure = Picture(figsize=(9.8, 3.9))
        sides: tuple[tuple[str, Callable[[Scores], float], float | None], ...] = (
            ("KL (nats per token)", lambda s: s.kl, None),
            ("same most likely token (%)", lambda s: 100 * s.agreement, None),
            ("perplexity", lambda s: s.perplexity, reference.perplexity),
        )
        for axes, (title, value, line) in zip(figure.subplots(1, 3), sides, strict=True):
            for method, color in METHODS.items():
                for bits in sorted({point.bits for point in points}):
                    mine = [p for p in points if p.method == method and p.bits == bits]
                    x, y = [p.nbytes / 1e6 for p in mine], [value(p.scores) for p in mine]
                    axes.plot(x, y, color=color, lw=1.2)
                    for p, at, height in zip(mine, x, y, strict=True):
                        axes.plot(at, height, MARKS.get(p.group, "D"), color=color, ms=6)
            if line is not None:
                axes.axhline(line, color=INK, lw=0.9, ls="--")
            axes.set_title(title, fontsize=10.5)
            axes.set_xlabel("MB of the matrices")
        first = figure.axes[0]
        for bits in sorted({point.bits for point in points}):
            mine = [point for point in points if point.bits == bits]
            center = sum(point.nbytes for point in mine) / len(mine) / 1e6
            lowest = min(point.scores.kl for point in mine)
            first.annotate(
                f"{bits} bits",
                (center, lowest),
                (0, -14),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        first.set_yscale("log")
        first.set_ylim(bottom=first.get_ylim()[0] / 3)
        first.yaxis.set_major_formatter("{x:g}")
        first.yaxis.set_minor_formatter(NullFormatter())
        handles = [
            *(Rectangle((0, 0), 1, 1, color=color, label=name) for name, color in METHODS.items()),
            *(
                first.plot([], [], MARKS.get(g, "D"), color=INK, ls="none", label=f"groups of {g}")[0]
                for g in sorted({p.group for p in points})
            ),
            first.plot([], [], color=INK, ls="--", lw=0.9, label="float")[0],
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=7, fontsize=9, columnspacing=1.2)
        return figure


def cache_figure(name: str, config: ModelConfig, requests: int) -> Picture:
    """Draw the bytes of a model's KV cache against the context, in 16 and 8 bits, next to its weights."""
    contexts = [2**i for i in range(9, 18)]
    with style():
        figure = Picture(figsize=(9, 3.6))
        axes = figure.subplots()
        ends = {}
        for label, size, scale, color in (("16 bits", 2, 0, KV), ("8 bits with scales", 1, 4, DECODE)):
            gb = [requests * n * config.kv_bytes_per_token(size, scale) / 1e9 for n in contexts]
            axes.plot(contexts, gb, "o-", color=color, ms=4)
            ends[f"cache, {label}: {gb[-1]:,.1f} GB"] = gb[-1]
        kept = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
        weights = {"weights, 16 bits": 2.0, "weights, 4 bits": 4.125 / 8}
        for label, width in weights.items():
            gb_of_weights = ((config.num_parameters - kept) * width + kept * 2.0) / 1e9
            look = "--" if width == 2 else ":"
            axes.plot(contexts[:: len(contexts) - 1], [gb_of_weights] * 2, look, color=FAINT, lw=1.4)
            ends[f"{label}: {gb_of_weights:,.1f} GB"] = gb_of_weights
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(contexts, [f"{n // 1024}K" if n >= 1024 else str(n) for n in contexts])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlim(contexts[0] * 0.9, contexts[-1] * 12)
        end_labels(axes, contexts[-1], ends)
        many = "request" if requests == 1 else "requests"
        axes.set_title(f"{name}, {requests} {many}: memory by context")
        axes.set_xlabel("tokens of context, each request")
        axes.set_ylabel("GB")
        return figure


def cache_explorer(models: Mapping[str, ModelConfig]) -> Explorer:
    """Return `cache_figure` with a menu of models and a slider of requests."""
    requests = widgets.SelectionSlider(
        options=[1, 2, 4, 8, 16, 32, 64, 128], value=8, description="requests", **WIDE
    )
    return Explorer(
        lambda model, requests: cache_figure(model, models[model], requests),
        model=list(models),
        requests=requests,
    )
