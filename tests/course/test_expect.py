"""What a call needed of memory, for checks."""

import sys

import pytest
import torch

from minillm.course import expect
from minillm.measure.memory import NoCounterError


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
