"""How a check words what it found, and what a call needed of memory."""

import re
import sys
from collections.abc import Callable
from typing import Any

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
