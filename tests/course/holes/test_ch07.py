"""The holes of chapter 07: other right answers pass, and each wrong answer is told what is wrong with it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from minillm.course.exercise import Wrong
from minillm.course.holes.ch07 import check_roll, check_unpack, roll, unpack


def by_arithmetic(packed, scale, zero=8):
    numbers = torch.empty(2 * len(packed))
    numbers[::2], numbers[1::2] = packed % 16, packed // 16
    return (numbers - zero) * scale


def halves(low: Callable[..., Any], high: Callable[..., Any]) -> Callable[..., Any]:
    """Return `unpack` with other lines for low and high."""

    def function(packed, scale, zero=8):
        return (torch.stack((low(packed), high(packed)), dim=-1).flatten().float() - zero) * scale

    return function


@pytest.mark.parametrize("right", [unpack, by_arithmetic, halves(lambda b: b % 16, lambda b: (b & 240) >> 4)])
def test_a_right_unpack_passes(right: Callable[..., Any]) -> None:
    check_unpack(right)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (lambda b: b >> 4, lambda b: b & 15, "two halves are exchanged"),
        (lambda b: b, lambda b: b >> 4, "low half still contains the whole byte"),
        (lambda b: b & 15, lambda b: b & 240, "still in the high bits"),
        (lambda b: b & 15, lambda b: b & 15, "Both halves are the low one"),
        (lambda b: b & 7, lambda b: b >> 4, "mask has three bits"),
        (lambda b: b & 15, lambda b: b >> 3, "A half has four bits"),
        (lambda b: b & 15, lambda b: b >> 5, "is wrong in"),
    ],
)
def test_a_wrong_unpack_is_told(low: Callable[..., Any], high: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_unpack(halves(low, high))


def test_the_zero_is_an_argument() -> None:
    with pytest.raises(Wrong, match="with zero=3"):
        check_unpack(lambda packed, scale, zero=8: unpack(packed, scale))


def column_by_column(w, values, U, j):
    for k in range(j + 1, w.shape[1]):
        w[:, k] += (values - w[:, j]) * (U[j, k] / U[j, j])
    w[:, j] = values


def all_of_the_row(w, values, U, j):
    """Right: column j itself moves by its whole error, up to rounding."""
    w[:, j:] -= torch.outer((w[:, j] - values) / U[j, j], U[j, j:])


def later(change: Callable[..., Any]) -> Callable[..., Any]:
    """Return `roll` with another line for the later columns."""

    def function(w, values, U, j):
        step = change(w[:, j] - values, values, U, j)
        w[:, j + 1 :] -= step
        w[:, j] = values

    return function


@pytest.mark.parametrize("right", [roll, column_by_column, all_of_the_row])
def test_a_right_roll_passes(right: Callable[..., Any]) -> None:
    check_roll(right)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e, v, U, j: 0, "have not changed"),
        (lambda e, v, U, j: torch.outer(e, U[j, j + 1 :]), "not divided by"),
        (lambda e, v, U, j: -torch.outer(e / U[j, j], U[j, j + 1 :]), "sign is wrong"),
        (lambda e, v, U, j: torch.outer(e / U[j, j] ** 2, U[j, j + 1 :]), "twice"),
        (lambda e, v, U, j: torch.outer(e * U[j, j], U[j, j + 1 :]), "multiplies by"),
        (lambda e, v, U, j: torch.outer(e / U[j, j], U[j + 1 :, j]), "U is 0 below"),
        (lambda e, v, U, j: torch.outer(v / U[j, j], U[j, j + 1 :]), "rounded values"),
        (lambda e, v, U, j: (e / U[j, j])[:, None], "whole error"),
        (lambda e, v, U, j: torch.outer(e / U[j, j], U[j, j + 1 :]) * 0.5, "is wrong in"),
    ],
)
def test_a_wrong_roll_is_told(change: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_roll(later(change))


def test_columns_that_are_fixed_must_stay() -> None:
    def function(w, values, U, j):
        roll(w, values, U, j)
        w[:, :j] += 1

    with pytest.raises(Wrong, match="fixed already"):
        check_roll(function)
