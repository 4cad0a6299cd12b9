"""Chapter 10's pictures: steps with more tokens, accept and residual, tokens per step, speed-up, where it loses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from minillm.viz.style import (
    ACCEPTED,
    DECODE,
    FAINT,
    INK,
    KV,
    PAPER,
    PREFILL,
    REJECTED,
    WASTE,
    Picture,
    printable,
    quiet,
    style,
)
from minillm.viz.widget import Explorer

DRAFT = "#DDCC77"  # the draft model's colour in the chapter's drawings
LEVELS = (0.5, 0.8, 1, 1.25, 1.5, 2, 3, 4)  # of the speed-up
TINTS = ("#F4C9A8", "#F8DCC6", "#FCEFE5", "#E6F4EE", "#C6E8DB", "#9FD8C2", "#73C6A5", "#45B186", "#1E9C6B")
METHODS = {
    "none": FAINT,
    "n-gram": PREFILL,
    "suffix": KV,
    "draft model": DRAFT,
    "EAGLE-3": "#AA4499",
}


def rows_figure(seconds: Mapping[int, float]) -> Picture:
    """Draw the time of one step by the number of its tokens, and the time per token."""
    with style():
        figure = Picture(figsize=(8.6, 2.9))
        whole, each = figure.subplots(1, 2)
        names, places = [str(n) for n in seconds], range(len(seconds))
        one = next(iter(seconds.values()))
        whole.bar(places, [1e3 * s for s in seconds.values()], color=DECODE, width=0.62)
        each.bar(places, [1e3 * s / n for n, s in seconds.items()], color=KV, width=0.62)
        for axes, texts, title in (
            (whole, [f"×{s / one:.1f}" for s in seconds.values()], "One step (ms)"),
            (each, [f"{1e3 * s / n:.1f}" for n, s in seconds.items()], "Per token (ms)"),
        ):
            _bar_texts(axes, texts)
            axes.set_xticks(places, names)
            axes.set_xlabel("tokens of one request in the step")
            axes.set_title(title)
        return figure


# --- accept and residual ---


def split(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return min(p, q), the rejected rest of q, and what the residual adds up to p: each [V]."""
    kept = torch.minimum(p, q)
    return kept, q - kept, p - kept


def likeliest(p: Tensor, q: Tensor) -> list[int]:
    """Return the tokens with the largest probabilities in p or q [V]."""
    return torch.maximum(p, q).topk(min(8, len(p))).indices.tolist()


def accept_figure(
    p: Tensor, q: Tensor, word: Callable[[int], str], tokens: Sequence[int] | None = None
) -> Picture:
    """Draw p and q [V] of some tokens, the accepted and rejected drafts, and the tokens that come out.

    `word(t)` is the text of token t. `tokens` are the likeliest ones if none are given.
    """
    kept, rejected, added = split(p, q)
    top = likeliest(p, q) if tokens is None else list(tokens)
    names = [_name(word(t)) for t in top]
    with style():
        figure = Picture(figsize=(9.4, 5.2))
        (model, drafts), (draft, out) = figure.subplots(2, 2, sharey=True)
        ratio = "accepted: min(p, q)"
        for axes, title, stack in (
            (model, "model: p", ((p, DECODE, ""),)),
            (draft, "draft: q", ((q, DRAFT, ""),)),
            (
                drafts,
                f"drafts: {float(kept.sum()):.0%} accepted",
                ((kept, ACCEPTED, ratio), (rejected, REJECTED, "rejected")),
            ),
            (
                out,
                "comes out: again p",
                ((kept, ACCEPTED, ratio), (added, DECODE, "from the residual")),
            ),
        ):
            floor = np.zeros(len(top))
            for values, color, label in stack:
                heights = values[top].numpy()
                axes.bar(range(len(top)), heights, bottom=floor, color=color, width=0.7, label=label or None)
                floor = floor + heights
            axes.set_title(title)
            axes.set_xticks(range(len(top)), names, rotation=35, ha="right", fontsize=9)
            if len(stack) > 1:
                axes.legend(loc="upper right", fontsize=9)
        return figure


def accept_explorer(logits: Tensor, draft_logits: Tensor, word: Callable[[int], str]) -> Explorer:
    """Return `accept_figure` of two rows of logits [V] with a slider for each temperature; 0 is greedy."""
    target, own = (row.float().cpu() for row in (logits, draft_logits))
    tokens = likeliest(target.softmax(-1), own.softmax(-1))  # so that no bar changes its place
    return Explorer(
        lambda temperature, draft_temperature: accept_figure(
            _softmax(target, temperature), _softmax(own, draft_temperature), word, tokens
        ),
        temperature=(0.0, 2.0, 1.0),
        draft_temperature=(0.0, 2.0, 1.0),
    )


def _softmax(logits: Tensor, temperature: float) -> Tensor:
    if temperature < 0.01:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).float()
    return (logits / temperature).softmax(-1)


def outcome_figure(p: Tensor, shares: Mapping[str, Tensor], word: Callable[[int], str]) -> Picture:
    """Draw how often each of the likeliest tokens came out, for each verifier, over the bars of p [V]."""
    top = p.topk(min(8, len(p))).indices.tolist()
    with style():
        figure = Picture(figsize=(9.4, 2.9))
        for axes, (name, share) in zip(
            figure.subplots(1, len(shares), sharey=True, squeeze=False)[0], shares.items(), strict=True
        ):
            axes.bar(range(len(top)), p[top].tolist(), color=KV, width=0.8, label="p")
            axes.plot(range(len(top)), share[top].tolist(), "o", color=INK, label="came out")
            axes.set_title(f"{name}: {distance(p, share):.1%} off", fontsize=10)
            axes.set_xticks(
                range(len(top)), [_name(word(t)) for t in top], rotation=45, ha="right", fontsize=9
            )
            axes.legend(loc="upper right", fontsize=9)
        return figure


def _name(text: str) -> str:
    """Return the text of a token in quotation marks if it is a space or a line break."""
    return printable(text) or repr(text)


def distance(p: Tensor, share: Tensor) -> float:
    """Return the total variation distance: the share of tokens that would have to be others."""
    return float((p - share).abs().sum()) / 2


# --- tokens per step, and the speed-up ---


def expected_tokens(acceptance: float, k: int) -> float:
    """Return (1 - a^(k+1)) / (1 - a): the tokens of a step with k drafts, each accepted with probability a."""
    return sum(acceptance**i for i in range(k + 1))


def speed_up(acceptance: float, k: int, draft_cost: float, verify_cost: float) -> float:
    """Return the expected speed-up of k drafts.

    `draft_cost` is the time of one draft, and `verify_cost` that of each further token in the model's step. Both are
    shares of the time of a step with one token.
    """
    return expected_tokens(acceptance, k) / (1 + verify_cost * k + draft_cost * k)


def tokens_figure(measured: Mapping[int, float], acceptance: float) -> Picture:
    """Draw the measured tokens per step by the number of drafts, and the closed form at this acceptance."""
    with style():
        figure = Picture(figsize=(8.2, 3.1))
        axes = figure.subplots()
        ks = range(max(measured) + 1)
        axes.plot(ks, [k + 1 for k in ks], color=FAINT, lw=1, ls=":", label="all drafts accepted: k + 1")
        label = f"(1 - α^(k+1)) / (1 - α) with α = {acceptance:.2f}"
        axes.plot(ks, [expected_tokens(acceptance, k) for k in ks], color=ACCEPTED, lw=2, label=label)
        highest = max(measured) + 1.0
        if acceptance < 1:
            highest = min(highest, 1 / (1 - acceptance))
            axes.axhline(1 / (1 - acceptance), color=ACCEPTED, lw=1, ls="--", label="its limit, 1 / (1 - α)")
        axes.plot(list(measured), list(measured.values()), "o", color=INK, ms=7, label="measured")
        axes.set_xlabel("k: drafts per step")
        axes.set_ylabel("tokens per step")
        axes.set_ylim(0, 1.25 * highest)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        axes.set_title("Tokens per step")
        return figure


@dataclass(frozen=True)
class Measured:
    """This machine's point: the acceptance of one run with k drafts, its costs, and its speed-up."""

    acceptance: float
    k: int
    draft_cost: float
    verify_cost: float
    speed_up: float


def surface_figure(point: Measured, draft_cost: float, verify_cost: float, k: int) -> Picture:
    """Draw the speed-up over acceptance and k at these costs, and at one k against acceptance."""
    alphas, ks = np.linspace(0, 1, 101), np.arange(0, 13)
    values = np.array([[speed_up(a, int(n), draft_cost, verify_cost) for a in alphas] for n in ks])
    best = values.argmax(0)
    here = (draft_cost, verify_cost) == (point.draft_cost, point.verify_cost)
    with style():
        figure = Picture(figsize=(9.6, 3.9))
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        top = float(values.max())
        left.contourf(alphas, ks[1:], values[1:], levels=[0, *LEVELS, 13], colors=TINTS)
        lines = left.contour(
            alphas, ks[1:], values[1:], levels=[at for at in LEVELS if at != 1], colors=FAINT, linewidths=0.7
        )
        left.contour(alphas, ks[1:], values[1:], levels=[1], colors=INK, linewidths=1.8)
        left.clabel(lines, fmt="×%g", fontsize=8.5, colors=INK)
        left.step(alphas, ks[best], where="mid", color=INK, ls=":", lw=1.6)
        left.plot(point.acceptance, point.k, "*", color=PAPER, mec=INK, ms=15)
        left.set_ylim(0, ks[-1])
        left.set_xlabel("acceptance α")
        left.set_ylabel("k: drafts per step")
        left.set_title(f"Speed-up, at most ×{top:.1f}. Star: this machine")
        right.axhline(1, color=FAINT, lw=1)
        right.plot(alphas, [speed_up(a, k, draft_cost, verify_cost) for a in alphas], color=DECODE, lw=2)
        right.plot(alphas, values.max(0), color=INK, ls=":", lw=1.6)
        right.text(
            0.02, 0.96, f"line: k = {k}\ndotted: best k", transform=right.transAxes, va="top", fontsize=9
        )
        if here and k == point.k:
            right.plot(point.acceptance, point.speed_up, "*", color=PAPER, mec=INK, ms=15)
        right.set_xlabel("acceptance α")
        right.set_title("Speed-up (star: measured)" if here and k == point.k else "Speed-up")
        right.set_ylim(0, max(2.0, 1.05 * top))
        return figure


def surface_explorer(point: Measured) -> Explorer:
    """Return `surface_figure` with sliders for the costs and k, at this machine's costs at first."""
    return Explorer(
        lambda draft_cost, verify_cost, k: surface_figure(
            point,
            _snapped(draft_cost, point.draft_cost),
            _snapped(verify_cost, point.verify_cost),
            k,
        ),
        draft_cost=(0.0, 1.0, round(point.draft_cost, 2)),
        verify_cost=(0.0, 1.0, round(point.verify_cost, 2)),
        k=(1, 12, point.k),
    )


def _snapped(value: float, measured: float) -> float:
    """Return the measured value if the slider is at its nearest step."""
    return measured if abs(value - measured) <= 0.006 else value


def methods_figure(rows: Mapping[str, Mapping[str, tuple[float, float]]]) -> Picture:
    """Draw (tokens per step, speed-up) of each method, for each text."""
    with style():
        figure = Picture(figsize=(9.4, 1.1 + 0.32 * sum(map(len, rows.values()))))
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        left, right = figure.subplots(1, 2, sharey=True)
        places, texts = list[float](), list[str]()
        y = 0.0
        for text, row in rows.items():
            for name in names:
                tokens, speed = row[name]
                left.barh(y, tokens, color=METHODS[name], height=0.75)
                right.barh(y, speed, color=METHODS[name], height=0.75)
                left.text(tokens, y, f" {tokens:.2f}", va="center", fontsize=9)
                right.text(max(speed, 1), y, f" ×{speed:.2f}", va="center", fontsize=9)
                places.append(y)
                texts.append(f"{text}: {name}")
                y += 1
            y += 0.5
        left.set_yticks(places, texts)
        left.set_ylim(y - 0.6, -0.6)
        left.set_title("Tokens per step")
        right.set_title("Speed, without drafts = 1")
        right.axvline(1, color=INK, lw=1)
        for axes in (left, right):
            quiet(axes)
            axes.set_xlim(0, 1.18 * axes.get_xlim()[1])
        right.tick_params(axis="y", length=0)
        return figure


def losses_figure(sides: Mapping[str, Mapping[str, float]]) -> Picture:
    """Draw the speed of each case, side by side: `{"batch": {"1": 1.3, "8": 0.9}, …}`. 1 is without drafts."""
    with style():
        figure = Picture(figsize=(9.6, 2.9))
        panels = figure.subplots(1, len(sides), sharey=True, squeeze=False)[0]
        for axes, (title, speeds) in zip(panels, sides.items(), strict=True):
            colors = [DECODE if speed >= 1 else WASTE for speed in speeds.values()]
            axes.bar(range(len(speeds)), list(speeds.values()), color=colors, width=0.62)
            axes.axhline(1, color=INK, lw=1)
            _bar_texts(axes, [f"×{speed:.2f}" for speed in speeds.values()], at_least=1)
            axes.set_xticks(range(len(speeds)), list(speeds))
            axes.set_xlabel(title)
        panels[0].set_ylabel("speed, without drafts = 1")
        return figure


def _bar_texts(axes: Axes, texts: Sequence[str], at_least: float = 0.0) -> None:
    """Write a text on each bar, not below the height `at_least`, and make room for it."""
    for bar, text in zip(axes.patches, texts, strict=True):
        assert isinstance(bar, Rectangle)
        x, y = bar.get_x() + bar.get_width() / 2, max(bar.get_height(), at_least)
        axes.text(x, y, text, ha="center", va="bottom", fontsize=9)
        axes.set_ylim(0, max(1.15 * y, axes.get_ylim()[1]))
