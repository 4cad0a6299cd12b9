"""RMSNorm, RoPE and SwiGLU against float64, with sizes on both sides of each program's edge."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has no build for this system")

import torch

from minillm.kernels.rms_norm import add_rms_norm, rms_norm
from minillm.kernels.rope import rope
from minillm.kernels.swiglu import swiglu
from tests.kernels.cases_layers import add_norm, gate, norm, turn

DTYPES = pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 1e-3)])
ROWS = [(1, 1), (3, 48), (2, 2047), (2, 2048), (2, 2049), (31, 64), (32, 64), (33, 64), (1, 9000)]


@DTYPES
@pytest.mark.parametrize("shape", [*ROWS, (3, 5, 20), (1, 1, 128), (7, 3, 128), (0, 64)])
def test_rms_norm(
    interpreted: Callable[..., Any], shape: tuple[int, ...], dtype: torch.dtype, limit: float
) -> None:
    error = interpreted(norm, shape, dtype=dtype)
    assert error <= limit if 0 not in shape else error != error  # of nothing, the norm is 0 / 0


@pytest.mark.parametrize("shape", [(3, 40), (3, 5, 20)])
def test_rms_norm_of_a_part_of_wider_rows(interpreted: Callable[..., Any], shape: tuple[int, ...]) -> None:
    assert interpreted(norm, shape, extra=3) <= 1e-5


@DTYPES
@pytest.mark.parametrize(("num_tokens", "n"), ROWS)
def test_add_rms_norm(
    interpreted: Callable[..., Any], num_tokens: int, n: int, dtype: torch.dtype, limit: float
) -> None:
    assert interpreted(add_norm, num_tokens, n, dtype=dtype) <= limit


@DTYPES
@pytest.mark.parametrize(
    ("num_tokens", "heads", "head_dim"), [(1, 1, 2), (5, 3, 20), (3, 15, 128), (2, 17, 128), (2, 33, 64)]
)
def test_rope(
    interpreted: Callable[..., Any],
    num_tokens: int,
    heads: int,
    head_dim: int,
    dtype: torch.dtype,
    limit: float,
) -> None:
    assert interpreted(turn, num_tokens, heads, head_dim, dtype=dtype) <= limit


@DTYPES
@pytest.mark.parametrize(("num_tokens", "m"), [(1, 1), (3, 48), (2, 1023), (2, 1024), (2, 1025)])
def test_swiglu(
    interpreted: Callable[..., Any], num_tokens: int, m: int, dtype: torch.dtype, limit: float
) -> None:
    assert interpreted(gate, num_tokens, m, dtype=dtype) <= limit


def test_swiglu_of_large_numbers(interpreted: Callable[..., Any]) -> None:
    """exp(-x) of a large negative gate is infinite; the gate's result is 0 all the same."""
    assert interpreted(gate, 3, 48, scale=100.0) <= 1e-5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rms_norm(torch.zeros(8), torch.zeros(8), 1e-5), r"\[T, N\] or \[T, H, N\]"),
        (lambda: rms_norm(torch.zeros(2, 8), torch.zeros(4), 1e-5), r"weight is \(4,\)"),
        (lambda: rms_norm(torch.zeros(8, 2).T, torch.zeros(8), 1e-5), "contiguous rows"),
        (lambda: rms_norm(torch.zeros(1, 40_000), torch.zeros(40_000), 1e-5), "the limit is 32768"),
        (
            lambda: add_rms_norm(torch.zeros(2, 8), torch.zeros(1, 8), torch.zeros(8), 1e-5),
            r"residual \(1, 8\)",
        ),
        (lambda: rope(torch.zeros(2, 3, 7), *[torch.zeros(2, 1, 7)] * 2), "even D"),
        (lambda: rope(torch.zeros(2, 3, 8), *[torch.zeros(3, 1, 8)] * 2), r"cos \(3, 1, 8\)"),
        (lambda: rope(torch.zeros(2, 3, 8), torch.zeros(2, 1, 8), torch.zeros(2, 1, 4)), r"sin \(2, 1, 4\)"),
        (lambda: rope(torch.zeros(3, 2, 8).transpose(0, 1), *[torch.zeros(2, 1, 8)] * 2), "token adjacent"),
        (lambda: swiglu(torch.zeros(2, 7)), r"must be \[T, 2 M\]"),
        (lambda: swiglu(torch.zeros(8, 2).T), "contiguous rows"),
    ],
)
def test_other_shapes_are_refused(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
