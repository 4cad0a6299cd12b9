"""The two processes in which kernels are checked without a GPU, one of each for all the tests that ask."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kernels.interpreter import interpreter
from tests.kernels.offline import Compiled, compile_launch, compiler


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Callable[..., Any]]:
    """`interpreted(case, **kwargs)` calls a case in a process that interprets kernels."""
    pytest.importorskip("triton", reason="triton has no build for this system")
    with interpreter() as worker:
        yield worker.call


@pytest.fixture(scope="session")
def compiled() -> Iterator[Callable[..., list[Compiled]]]:
    """`compiled(function, kwargs, architecture)` compiles the kernels that a call launches, without a GPU."""
    pytest.importorskip("triton", reason="triton has no build for this system")
    with compiler() as worker:
        yield lambda *call: worker.call(compile_launch, *call)
