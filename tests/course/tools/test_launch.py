"""A kernel of a cell: it writes into the tensors, and an access outside of them is named."""
# ruff: noqa: F821 - the kernel is written to a file that imports tl

import platform

import pytest
import torch

from minillm.course.tools import launch as tool
from minillm.course.tools.launch import launch, why_no_triton

needs_triton = pytest.mark.skipif(bool(why_no_triton()), reason="triton has no build for this system")


def double(x, out, n, BLOCK: "tl.constexpr"):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, 2 * tl.load(x + at), mask=at < n)


@needs_triton
@pytest.mark.slow
def test_it_writes_into_the_tensors() -> None:
    x, out = torch.arange(8.0), torch.zeros(8)
    launch(double, 2, x, out, 8, BLOCK=4)
    assert out.tolist() == (2 * x).tolist() and x.tolist() == list(range(8))


@needs_triton
@pytest.mark.slow
def test_an_access_outside_is_named() -> None:
    with pytest.raises(IndexError, match="Program 1 loads entry 7 of `x`, which has 7 entries"):
        launch(double, 2, torch.arange(7.0), torch.zeros(8), 8, BLOCK=4)
    with pytest.raises(IndexError, match="Program 1 stores entry 6 of `out`, which has 6 entries"):
        launch(double, 2, torch.arange(8.0), torch.zeros(6), 8, BLOCK=4)


@pytest.mark.parametrize(
    ("system", "said"), [("Darwin", "this system is Darwin"), ("Linux", "pip install triton")]
)
def test_a_system_without_triton_says_so(monkeypatch: pytest.MonkeyPatch, system: str, said: str) -> None:
    monkeypatch.setattr(tool, "has_triton", lambda: False)
    monkeypatch.setattr(platform, "system", lambda: system)
    assert said in why_no_triton()
    with pytest.raises(RuntimeError, match="released for Linux only"):
        launch(double, 1, torch.zeros(4), torch.zeros(4), 4, BLOCK=4)
