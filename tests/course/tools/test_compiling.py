"""Test the calls of torch.compile that run in a separate process."""

import shutil

import pytest
import torch

from minillm.course.tools import compiling
from minillm.ops import add_rms_norm


def test_the_chain_is_the_engines_operation() -> None:
    x, residual = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(0.5, 2, 8)
    for got, right in zip(
        compiling.add_norm(x, residual, weight), add_rms_norm(x, residual, weight, 1e-5), strict=True
    ):
        torch.testing.assert_close(got, right)


def test_what_takes_too_long_is_said() -> None:
    assert compiling.compiled(timeout=0.05) == "it did not finish in 0.05 s"


def test_a_process_that_fails_tells_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.sys, "executable", shutil.which("false"))
    assert compiling.compiled() == "status 1"


@pytest.mark.slow
def test_a_fixed_shape_is_compiled_each_time() -> None:
    found = compiling.compiled(timeout=300)
    if isinstance(found, str):
        pytest.skip(f"torch.compile cannot run here: {found}")
    assert (found.fixed_shapes, found.functions) == (compiling.SHAPES, 1)
    assert 1 <= found.guessed_shapes < compiling.SHAPES
