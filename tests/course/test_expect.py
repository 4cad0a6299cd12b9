"""How a check words what it found, and what a call needed of memory."""

import math
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.measure.memory import NoCounterError


def test_an_entry_is_named_without_an_article() -> None:
    with pytest.raises(Wrong, match=r"^result\[1\] is 1; it should be 9$"):
        expect.equal([4, 1], [4, 9])
    with pytest.raises(Wrong, match=r"^the result has 1 entries; 2 are wanted$"):
        expect.equal([4], [4, 9])


@pytest.mark.parametrize(
    ("argument", "change", "advice"),
    [
        ([1], lambda x: x.append(2), "append and +=: `ids = x` makes no copy, `list(x)` does"),
        ({1: 2}, lambda x: x.clear(), "`mine = x` makes none, while `x.copy()` does"),
        (torch.ones(2), lambda x: x.mul_(2), "operations that end in _, for -= and +=, and"),
    ],
)
def test_what_changes_an_argument_is_named_by_its_kind(
    argument: Any, change: Callable[[Any], Any], advice: str
) -> None:
    def f(x: Any) -> None:
        change(x)

    with pytest.raises(Wrong, match=re.escape(advice)):
        Answer(f, "f")(argument)


class Always(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


def test_numbers_of_numpy_are_pythons() -> None:
    expect.equal(np.int64(3), 3)
    expect.equal([np.int32(3), 4], [3, 4])
    expect.equal(np.float32(0.5), 0.5)
    assert type(expect.number(np.float64(2.5))) is float and type(expect.number(np.int8(2))) is int
    for value in (True, "2", None, math.nan, torch.ones(())):
        with pytest.raises(Wrong):
            expect.number(value)


@pytest.mark.parametrize(
    ("value", "right"), [(Always(3), 4), ([Always(3)], [4]), ({1: Always(3)}, {1: 4}), (True, 1)]
)
def test_a_class_that_equals_everything_is_not_equal(value: Any, right: Any) -> None:
    with pytest.raises(Wrong):
        expect.equal(value, right)


def test_an_entry_of_a_long_name_is_told_apart_from_it() -> None:
    with pytest.raises(Wrong, match=r"^entry 1 of 11 slots, in blocks of 1 is 5; it should be 6$"):
        expect.equal([4, 5], [4, 6], "11 slots, in blocks of 1")


def test_cases_name_the_mistake_or_the_arguments() -> None:
    half, mistakes = lambda n: n // 2, {"it is rounded up": lambda n: -(-n // 2)}
    expect.cases(half, half, [(3,), (4,)], mistakes=mistakes)
    with pytest.raises(Wrong, match=r"^it is rounded up$"):
        expect.cases(lambda n: (n + 1) // 2, half, [(4,), (3,)], mistakes=mistakes)
    with pytest.raises(Wrong, match=r"^the result for \(3\) is 3; it should be 1$"):
        expect.cases(lambda n: n, half, [(3,)], mistakes=mistakes)
    with pytest.raises(ValueError, match="on none of these numbers"):
        expect.cases(half, half, [(4,)], mistakes=mistakes)
    with pytest.raises(Wrong, match=r"^it is negative$"):
        expect.cases(
            lambda x: -x, lambda x: x, [(torch.ones(2),)], axes="T", mistakes={"it is negative": torch.neg}
        )


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.softmax(-1),
        lambda x: torch.ops.aten._softmax(x, -1, False),
        lambda x: torch.nn.Softmax(-1)(x),
    ],
)
def test_an_operator_is_refused_under_each_of_its_names(call: Callable[[Any], Any]) -> None:
    with pytest.raises(Wrong, match=r"^do without$"), expect.without("softmax", "do without"):
        call(torch.ones(2))


def test_all_that_a_call_makes_is_counted() -> None:
    x = torch.ones(1000)
    with expect.counted() as ran:
        for _ in range(3):
            x.clone()
        x[:5].view(5)
    assert ran.operators["clone"] == 3 and ran.allocated == 3 * x.nbytes


def test_a_reason_stands_before_the_numbers() -> None:
    with pytest.raises(Wrong, match=r"^too small \(the result is wrong in 2 of 2 places"):
        expect.close(
            torch.zeros(2), torch.ones(2), "T", why=lambda value: "too small" if value.sum() < 1 else ""
        )
    with pytest.raises(Wrong, match="is wrong in 2 of 2 places"):
        expect.close(torch.zeros(2), torch.ones(2), "T", why=lambda value: "")


def test_what_a_call_needs_is_told_with_its_result() -> None:
    order = []

    def call() -> str:
        order.append("call")
        return "done" if torch.ones(2**23).sum() else ""

    out, added = expect.peak_of(lambda: order.append("warm-up"), call)
    assert out == "done" and order == ["warm-up", "call"]
    if sys.platform == "linux":
        assert added == pytest.approx(2**25, rel=0.1)


def test_where_nobody_counts_the_call_is_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NoCounterError

    monkeypatch.setattr(expect, "return_freed_memory_at_once", refuse)
    assert expect.peak_of(lambda: None, lambda: "done") == ("done", 0)


def test_a_stub_is_no_missing_counter() -> None:
    def stub() -> None:
        raise NotImplementedError("your code here")

    with pytest.raises(NotImplementedError, match="your code here"):
        expect.peak_of(stub, stub)


def test_a_mistake_explains_all_results_or_none() -> None:
    mistakes = {"doubled": lambda x: 2 * x, "squared": lambda x: x * x}
    assert expect.explanation(mistakes, [2, 3], [4, 9]) == "squared"  # both explain the first result
    assert expect.explanation(mistakes, [2, 3], [4, 6]) == "doubled"
    assert expect.explanation(mistakes, [2, 3], [4, 7]) is None
    assert expect.explanation(mistakes, [2], [4.2], lambda a, b: abs(a - b) < 0.5) == "doubled"
