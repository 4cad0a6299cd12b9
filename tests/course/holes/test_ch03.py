"""The holes of chapter 03: other right answers pass, and each wrong answer is told what is wrong with it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from minillm.course.exercise import Wrong
from minillm.course.holes.ch03 import append, check_append, check_positions, positions


def by_index(stored, new, num_computed):
    rows = torch.arange(len(new)) + num_computed
    stored.index_copy_(0, rows, new)
    return stored[: num_computed + len(new)]


def row_by_row(stored, new, num_computed):
    for i in range(len(new)):
        stored[num_computed + i] = new[i]
    return stored[: num_computed + len(new)].clone()


def from_row_0(stored, new, num_computed):
    stored[: len(new)] = new
    return stored[: num_computed + len(new)]


def one_row_early(stored, new, num_computed):
    start = max(0, num_computed - 1)
    stored[start : start + len(new)] = new
    return stored[: num_computed + len(new)]


def one_row_late(stored, new, num_computed):
    stored[num_computed + 1 : num_computed + 1 + len(new)] = new
    return stored[: num_computed + len(new)]


def only_the_first(stored, new, num_computed):
    stored[num_computed] = new[0]
    return stored[: num_computed + len(new)]


def only_the_last(stored, new, num_computed):
    stored[num_computed] = new[-1]
    return stored[: num_computed + len(new)]


def concatenated(stored, new, num_computed):
    return torch.cat([stored[:num_computed], new])


def all_of_it(stored, new, num_computed):
    append(stored, new, num_computed)
    return stored


def only_the_new(stored, new, num_computed):
    append(stored, new, num_computed)
    return new


def only_the_old(stored, new, num_computed):
    append(stored, new, num_computed)
    return stored[:num_computed]


def no_return(stored, new, num_computed):
    append(stored, new, num_computed)


@pytest.mark.parametrize("right", [append, by_index, row_by_row])
def test_a_right_append_passes(right: Callable[..., Any]) -> None:
    check_append(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (from_row_0, "row 0 is lost"),
        (one_row_early, "row 2 is lost"),
        (one_row_late, "row 0 of `stored` is wrong: nothing was written"),
        (only_the_first, "row 1 of `stored` is wrong: nothing was written"),
        (only_the_last, "row 0 of `stored` is wrong: it holds the numbers of another row"),
        (concatenated, "row 0 of `stored` is wrong: nothing was written"),
        (all_of_it, "returns all of `stored`"),
        (only_the_old, "returns the rows without the new ones"),
        (only_the_new, "returns only the new rows"),
        (no_return, "is None"),
    ],
)
def test_a_wrong_append_is_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_append(wrong)


@pytest.mark.parametrize(
    "right",
    [
        positions,
        lambda num_tokens, num_computed: range(num_computed, num_computed + num_tokens),
        lambda num_tokens, num_computed: torch.arange(num_tokens) + num_computed,
    ],
)
def test_right_positions_pass(right: Callable[..., Any]) -> None:
    check_positions(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda n, done: list(range(n)), "from the start of the step"),
        (lambda n, done: [done + i + 1 for i in range(n)], "one too far"),
        (lambda n, done: list(range(done + n)), "the old tokens too"),
        (lambda n, done: [done], "the first new token only"),
        (lambda n, done: [done] * n, "the same position"),
        (lambda n, done: range(done, n), "It ends at num_tokens"),
        (lambda n, done: done, "a list is wanted"),
        (lambda n, done: None, "None"),
        (lambda n, done: [done + n - 1 - i for i in range(n)], "it should be 0"),
    ],
)
def test_wrong_positions_are_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_positions(wrong)
