"""FlashAttention on a GPU, compiled, with the tiles that ship: the cases of tests/kernels/, and longer ones."""

import pytest
import torch

pytest.importorskip("triton", reason="triton has no build for this system")

from tests.kernels import cases_flash

pytestmark = pytest.mark.gpu

GATES = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
every_dtype = pytest.mark.parametrize("dtype", GATES, ids=str)
# B, S_q, S_k, H, H_kv, D
SHAPES = [
    (1, 1, 1, 1, 1, 64),
    (2, 1, 700, 8, 2, 128),
    (2, 127, 127, 4, 2, 64),
    (2, 128, 256, 4, 1, 128),
    (1, 129, 1000, 6, 2, 128),
    (1, 300, 200, 2, 1, 128),  # 100 rows that see no key if causal
    (3, 1111, 1111, 4, 2, 128),
]
HEAD_DIMS = [(d, dtype) for dtype in GATES for d in (1, 16, 24, 32, 64, 80, 96, 128, 160, 256)]


def assert_within(errors: dict[str, float], dtype: torch.dtype) -> None:
    assert all(error <= GATES[dtype] for error in errors.values()), errors  # false for a NaN


@every_dtype
@pytest.mark.parametrize(
    "options", [{}, {"causal": False}, {"window": 1}, {"window": 100}, {"window": 256}], ids=str
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(shape: tuple[int, ...], options: dict, dtype: torch.dtype) -> None:
    assert_within(cases_flash.forward(shape, device="cuda", dtype=dtype, **options), dtype)


@every_dtype
@pytest.mark.parametrize("options", [{}, {"causal": False}, {"window": 100}], ids=str)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[2] > 1], ids=str)
def test_backward(shape: tuple[int, ...], options: dict, dtype: torch.dtype) -> None:
    assert_within(cases_flash.backward(shape, device="cuda", dtype=dtype, **options), dtype)


@pytest.mark.parametrize(
    ("head_dim", "dtype"), [(d, t) for d, t in HEAD_DIMS if t != torch.float32 or d <= 128], ids=str
)
def test_every_head_dim(head_dim: int, dtype: torch.dtype) -> None:
    shape = (2, 200, 300, 4, 2, head_dim)
    assert_within(cases_flash.forward(shape, device="cuda", dtype=dtype), dtype)
    assert_within(cases_flash.backward(shape, device="cuda", dtype=dtype), dtype)


def test_scores_of_any_size_do_not_overflow() -> None:
    assert_within(cases_flash.large_scores("cuda"), torch.float32)


def test_the_gradients_are_the_same_in_every_run() -> None:
    assert cases_flash.repeated_gradients("cuda", torch.bfloat16)
