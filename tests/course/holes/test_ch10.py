"""The holes of chapter 10: other right answers pass, and each wrong answer is told what is wrong with it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from minillm.course.exercise import Wrong
from minillm.course.holes.ch10 import accept, check_accept, check_residual, residual


@pytest.mark.parametrize(
    "answer",
    [
        accept,
        lambda p, q, x, u: u < min(1.0, (p[x] / q[x]).item()),
        lambda p, q, x, u: bool(u * q[x] < p[x]),
        lambda p, q, x, u: torch.rand(()) < 2 and u < torch.minimum(p[x] / q[x], torch.ones(())),
    ],
)
def test_right_acceptance_passes(answer: Callable[..., Any]) -> None:
    check_accept(answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda p, q, x, u: True, "every draft"),
        (lambda p, q, x, u: u < max(1, p[x] / q[x]), "every draft"),
        (lambda p, q, x, u: False, "rejects every draft"),
        (lambda p, q, x, u: u < q[x] / p[x], "upside down"),
        (lambda p, q, x, u: u > p[x] / q[x], "wrong way round"),
        (lambda p, q, x, u: u < p[x], "divide by q"),
        (lambda p, q, x, u: u < q[x], "depends on the model"),
        (lambda p, q, x, u: u < p[x] - q[x], "difference"),
        (lambda p, q, x, u: p[x] >= q[x], "whatever u is"),
        (lambda p, q, x, u: x == p.argmax(), "most likely"),
        (lambda p, q, x, u: u <= p[x] / q[x], "not <="),
        (lambda p, q, x, u: p[x] / q[x], "True or False"),
        (lambda p, q, x, u: None, "return"),
        (lambda p, q, x, u: u < 0.5 * p[x] / q[x], "the ratio is"),
    ],
)
def test_wrong_acceptance_is_named(answer: Callable[..., Any], words: str) -> None:
    with pytest.raises(Wrong, match=words):
        check_accept(answer)


def with_relu(p, q):
    rest = torch.relu(p - q)
    return p if rest.sum() == 0 else rest / rest.sum()


def by_maximum(p, q):
    rest = torch.maximum(p, q) - q
    total = rest.sum()
    return torch.where(total > 0, rest / total, p)


def by_loop(p, q):
    rest = [max(0.0, a - b) for a, b in zip(p.tolist(), q.tolist(), strict=True)]
    return torch.tensor([r / sum(rest) for r in rest], dtype=p.dtype) if sum(rest) else p.clone()


def normalised(weights):
    return weights / weights.sum()


def in_place(p, q):
    return normalised(p.sub_(q).clamp_(min=0))


@pytest.mark.parametrize("answer", [residual, with_relu, by_maximum, by_loop])
def test_right_residuals_pass(answer: Callable[..., Any]) -> None:
    check_residual(answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda p, q: p, "It returns p"),
        (lambda p, q: p - q, "negative numbers"),
        (lambda p, q: (p - q).clamp(min=0), "sum is not 1"),
        (lambda p, q: normalised((q - p).clamp(min=0)), "q - p"),
        (lambda p, q: normalised((p - q).abs()), "absolute"),
        (lambda p, q: normalised(torch.minimum(p, q)), "min"),
        (lambda p, q: (p - q).clamp(min=0).softmax(-1), "softmax"),
        (lambda p, q: normalised((p - q).clamp(min=0)), "0 by 0"),
        (in_place, "changes p or q"),
        (lambda p, q: normalised((p - 0.5 * q).clamp(min=0)), "wrong in"),
        (lambda p, q: None, "return"),
    ],
)
def test_wrong_residuals_are_named(answer: Callable[..., Any], words: str) -> None:
    with pytest.raises(Wrong, match=words):
        check_residual(answer)
