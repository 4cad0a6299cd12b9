"""The holes of chapter 06: other right answers pass, and each wrong answer is told what is wrong with it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from minillm.course.exercise import Wrong
from minillm.course.holes.ch06 import check_product, check_quantise, product, quantise


def one_by_one(row, bits):
    scale = max(abs(float(w)) for w in row) / ((2**bits - 1) / 2)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return torch.tensor([max(low, min(high, round(float(w) / scale))) for w in row]), scale


def in_int8(row, bits):
    scale = 2 * torch.maximum(row.max(), -row.min()) / (2**bits - 1)
    return torch.clamp(torch.round(row / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).to(
        torch.int8
    ), scale


def of(row, bits, scale=None, change=lambda q: q.round(), low=None, high=None):
    """Quantise with one part exchanged."""
    scale = quantise(row, bits)[1] if scale is None else scale
    low = -(2 ** (bits - 1)) if low is None else low
    high = 2 ** (bits - 1) - 1 if high is None else high
    return change(row / scale).clamp(low, high), scale


@pytest.mark.parametrize("right", [quantise, one_by_one, in_int8])
def test_a_right_row_passes(right: Callable[..., Any]) -> None:
    check_quantise(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda row, bits: of(row, bits, row.max() / ((2**bits - 1) / 2)), "without its sign removed"),
        (lambda row, bits: of(row, bits, row.abs().max() / (2 ** (bits - 1) - 1)), "another convention"),
        (lambda row, bits: of(row, bits, row.abs().max() / 2 ** (bits - 1)), "Here it is / 7.5"),
        (lambda row, bits: of(row, bits, row.abs().max() / (2**bits - 1)), "only half as far"),
        (lambda row, bits: of(row, bits, row.abs().max() / ((2**bits - 1) / 4)), "twice as wide"),
        (lambda row, bits: of(row, bits, row.abs().max()), "largest |w| alone"),
        (lambda row, bits: (quantise(row, bits)[0], 1 / quantise(row, bits)[1]), "steps per weight"),
        (lambda row, bits: of(row, bits, torch.full_like(row, 0.2)), "a single scale"),
        (lambda row, bits: of(row, bits, row.abs().mean()), "It should be 0.2"),
        (lambda row, bits: of(row, bits, change=lambda q: q), "not rounded"),
        (lambda row, bits: of(row, bits, change=torch.trunc), "toward 0"),
        (lambda row, bits: of(row, bits, change=torch.floor), "rounded down"),
        (lambda row, bits: of(row, bits, low=-999, high=999), "above 7"),
        (lambda row, bits: of(row, bits, low=-(2 ** (bits - 1)) + 3), "Number 1 is -5"),
        (lambda row, bits: (row, quantise(row, bits)[1]), "weights, not numbers of steps"),
        (
            lambda row, bits: (quantise(row, bits)[0] * quantise(row, bits)[1], quantise(row, bits)[1]),
            "back in the units",
        ),
        (
            lambda row, bits: (quantise(row, bits)[0] + 2 ** (bits - 1), quantise(row, bits)[1]),
            "above 7",
        ),
        (lambda row, bits: quantise(row, bits)[0], "two things"),
        (lambda row, bits: None, "None"),
    ],
)
def test_a_wrong_row_is_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said.replace("|", r"\|")):
        check_quantise(wrong)


def in_float64(q_x, s_x, q_w, s_w):
    return torch.einsum("ti,oi->to", q_x.double(), q_w.double()) * torch.outer(s_x.double(), s_w.double())


def as_floats(q_x, s_x, q_w, s_w):
    return (q_x * s_x[:, None]) @ (q_w * s_w[:, None]).T


def with_numpy(q_x, s_x, q_w, s_w):
    return torch.from_numpy(np.outer(s_x.numpy(), s_w.numpy()) * (q_x.numpy() @ q_w.numpy().T)).float()


@pytest.mark.parametrize("right", [product, with_numpy, lambda *a: in_float64(*a).float(), as_floats])
def test_a_right_product_passes(right: Callable[..., Any]) -> None:
    check_product(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda q_x, s_x, q_w, s_w: q_x @ q_w.T, "sums of integers"),
        (lambda q_x, s_x, q_w, s_w: (q_x @ q_w.T) * s_w, "scales of the tokens are missing"),
        (lambda q_x, s_x, q_w, s_w: (q_x @ q_w.T) * s_x[:, None], "scales of the weights are missing"),
        (lambda q_x, s_x, q_w, s_w: (q_x @ q_w.T) * s_x * s_w[:, None], "exchanged"),
        (lambda q_x, s_x, q_w, s_w: (q_x @ q_w.T) * s_x * s_w, "tokens run along the columns"),
        (lambda q_x, s_x, q_w, s_w: (q_x @ q_w.T) * s_x[:, None] * s_w[:, None], "run along the rows"),
        (lambda q_x, s_x, q_w, s_w: (q_x @ q_w.T) * (s_x[:, None] + s_w), "added"),
        (lambda q_x, s_x, q_w, s_w: (q_x @ q_w.T) / s_x[:, None] / s_w, "divided by the scales"),
        (lambda q_x, s_x, q_w, s_w: (q_x @ q_w) * s_x[:, None] * s_w, "not transposed"),
        (lambda q_x, s_x, q_w, s_w: (q_x @ q_w.T[:, :2]) * s_x[:, None], "shape"),
        (
            lambda q_x, s_x, q_w, s_w: (
                (q_x.to(torch.int8) @ q_w.to(torch.int8).T).float() * s_x[:, None] * s_w
            ),
            "overflowed",
        ),
        (lambda q_x, s_x, q_w, s_w: None, "None"),
    ],
)
def test_a_wrong_product_is_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_product(wrong)
