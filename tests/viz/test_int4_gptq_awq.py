"""Chapter 7's pictures show their numbers: bits of a word, changes of weights, errors, bars and lines."""

from dataclasses import dataclass

import pytest
import torch
from matplotlib.colors import to_hex

from minillm.measure.known_models import KNOWN_MODELS
from minillm.packed import pack_int4
from minillm.viz import int4_gptq_awq as pictures
from minillm.viz.int4_gptq_awq import Point, Walk
from minillm.viz.style import ACCEPTED, DECODE, PREFILL, Picture

LLAMA = KNOWN_MODELS["llama_3_8b"]


@dataclass(frozen=True)
class Score:
    kl: float
    agreement: float
    perplexity: float


def words(picture: Picture) -> str:
    return "\n".join(
        text.get_text() for axes in picture.axes for text in (*axes.texts, axes.title, axes.xaxis.label)
    ) + "\n".join(axes.get_title(loc="left") for axes in picture.axes)


def walk(columns: int = 40) -> Walk:
    """A run that makes up for each error with the next column, by a half."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, columns, generator=generator)
    scale = torch.full_like(start, 0.4)
    w, steps = start.clone(), []
    for j in range(columns):
        value = (w[:, j] / 0.4).round() * 0.4
        if j + 1 < columns:
            w[:, j + 1] += (w[:, j] - value) / 2
        w[:, j] = value
        steps.append(w.clone())
    hessian = torch.eye(columns) + 0.5
    return Walk(start, scale, (start / 0.4).round() * 0.4, steps, hessian)


def points() -> list[Point]:
    return [
        Point(method, bits, group, bits * 1e6 + 1e7 / group, Score(0.5 / bits**2, 0.6 + bits / 20, 14 - bits))
        for method in pictures.METHODS
        for bits in (8, 4, 3)
        for group in ((128,) if bits == 8 else (128, 64, 32))
    ]


def test_a_word_shows_its_bits_and_takes_one_number_out() -> None:
    numbers = torch.tensor([[15, 5, 9, 3, 11, 9, 8, 2, 0, 1, 2, 3, 4, 5, 6, 7]])
    packed = pack_int4(numbers)[0]
    picture = pictures.word_figure(packed, torch.arange(16) / 10, 0.1, number=2)
    [axes] = picture.axes
    text = words(picture)
    assert "0x289B395F" in text and "(9 - 8) · 0.10000 = +0.10000" in text and "weight 2 was +0.20000" in text
    bits = "".join(
        t.get_text() for t in sorted(axes.texts, key=lambda t: t.get_position()[0]) if t.get_text() in "01"
    )
    assert int(bits, 2) == 0x289B395F
    orange = [patch for patch in axes.patches if to_hex(patch.get_facecolor()) == PREFILL.lower()]
    assert sorted(patch.get_x() for patch in orange) == [20.5, 21.5, 22.5, 23.5], "bits 11 to 8"
    assert "0x76543210: weights 15 to 8" in words(
        pictures.word_figure(packed, torch.arange(16) / 10, 0.1, number=9)
    )


def test_the_row_has_fixed_columns_on_the_left_and_floats_on_the_right() -> None:
    run = walk()
    picture = pictures.rolling_figure(run, run.errors(), run.errors(nearest=True), row=1, column=20)
    row = picture.axes[0]
    ends = {line.get_xdata()[0]: line for line in row.lines if len(line.get_xdata()) == 1}
    colors = {k: line.get_color() for k, line in ends.items()}
    assert colors[20] == PREFILL and colors[19] == ACCEPTED and colors[21] == DECODE
    for k, line in ends.items():
        change = (run.steps[20][1, int(k)] - run.start[1, int(k)]) / run.scale[1, int(k)]
        assert line.get_ydata()[0] == pytest.approx(float(change))
    assert [t.get_text() for t in row.texts][-1] == f"{run.steps[20][1, 20] / 0.4:.0f}".replace("-0", "0")


@pytest.mark.parametrize("column", [0, 39])
def test_the_first_and_the_last_column_can_be_drawn(column: int) -> None:
    run = walk()
    pictures.rolling_figure(run, run.errors(), run.errors(nearest=True), 0, column).draw_without_rendering()


def test_errors_are_shares_of_the_outputs() -> None:
    run = walk()
    off = run.rounded - run.start
    total = float(((run.start @ run.hessian) * run.start).sum())
    assert run.errors(nearest=True)[-1] == pytest.approx(
        100 * float(((off @ run.hessian) * off).sum()) / total
    )
    half = run.start.clone()
    half[:, :20] = run.rounded[:, :20]
    off = half - run.start
    assert run.errors(nearest=True)[19] == pytest.approx(
        100 * float(((off @ run.hessian) * off).sum()) / total
    )


def test_the_stepper_stays_within_the_run() -> None:
    explorer = pictures.rolling_explorer(walk(), row=0, column=3)
    explorer.set(column=39, row=2)
    assert explorer.values == {"column": 39, "row": 2}
    explorer.set(column=99)
    assert explorer.values["column"] == 39


def test_the_smallest_loss_is_ringed() -> None:
    picture = pictures.alpha_figure({"the model": [4.0, 2.0, 1.0, 3.0], "planted": [1.0, 2.0, 3.0, 0.5]})
    assert "the model: 0.25 at α = 0.50" in words(picture) and "planted: 0.50 at α = 0.75" in words(picture)
    rings = [line for line in picture.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert [(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in rings] == [(0.5, 0.25), (0.75, 0.5)]


def test_salient_channels_are_marked() -> None:
    x = torch.ones(20)
    x[[3, 11]] = 8
    picture = pictures.salient_figure({"the model": torch.ones(20), "planted": x}, number=2)
    marked = sorted(line.get_xdata()[0] for line in picture.axes[1].lines)
    assert marked == [3, 11] and "largest: 8.0 × median" in words(picture)


def test_bars_are_as_long_as_their_numbers() -> None:
    kl = {"rounded to nearest": 0.13, "1 % in float, by input": 0.07, "scaled by 4": 0.08}
    picture = pictures.ladder_figure(kl, "KL")
    assert [bar.get_width() for bar in picture.axes[0].patches] == list(kl.values())
    bits = pictures.bits_figure({8: Score(0.01, 0.99, 9), 4: Score(0.2, 0.8, 10)})
    assert [bar.get_height() for bar in bits.axes[0].patches] == [0.01, 0.2]
    assert "80.0%" in words(bits)


def test_each_model_is_a_mark_at_its_bytes() -> None:
    some = points()
    picture = pictures.methods_figure(some, Score(0, 1, 5.5))
    for axes, value in zip(picture.axes, ("kl", "agreement", "perplexity"), strict=True):
        marks = {
            (line.get_xdata()[0], round(float(line.get_ydata()[0]), 6))
            for line in axes.lines
            if len(line.get_xdata()) == 1
        }
        factor = 100 if value == "agreement" else 1
        assert marks == {(p.nbytes / 1e6, round(factor * getattr(p.scores, value), 6)) for p in some}
    assert [float(line.get_ydata()[0]) for line in picture.axes[2].lines if line.get_linestyle() == "--"] == [
        5.5
    ]


def test_the_cache_has_its_bytes_in_16_and_8_bits() -> None:
    picture = pictures.cache_figure("llama_3_8b", LLAMA, 8)
    wide, narrow = (line.get_ydata() for line in picture.axes[0].lines[:2])
    assert wide[-1] == pytest.approx(8 * 131_072 * LLAMA.kv_bytes_per_token(2) / 1e9)
    assert narrow[0] / wide[0] == pytest.approx(132 / 256)
    explorer = pictures.cache_explorer({"llama_3_8b": LLAMA})
    explorer.set(requests=1)
    assert explorer.values == {"model": "llama_3_8b", "requests": 1}
