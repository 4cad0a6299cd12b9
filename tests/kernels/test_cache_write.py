"""Writing into the cache: each number in its slot and nothing elsewhere, as it was or quantised."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has no build for this system")

import torch

from minillm.kernels.cache_write import write_kv
from minillm.layer_kv import LayerKV
from tests.kernels.cases_layers import write

KV_DTYPES = pytest.mark.parametrize(
    "kv_dtype", [None, torch.int8, torch.float8_e4m3fn], ids=["as is", "int8", "fp8"]
)


@KV_DTYPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_bit_is_what_torch_writes(
    interpreted: Callable[..., Any], dtype: torch.dtype, kv_dtype: torch.dtype | None
) -> None:
    interpreted(write, dtype=dtype, kv_dtype=kv_dtype)


@KV_DTYPES
@pytest.mark.parametrize(("num_tokens", "heads", "head_dim"), [(1, 1, 16), (2, 8, 64), (5, 7, 128)])
def test_every_shape(
    interpreted: Callable[..., Any], num_tokens: int, heads: int, head_dim: int, kv_dtype: torch.dtype | None
) -> None:
    interpreted(write, num_tokens=num_tokens, heads=heads, head_dim=head_dim, kv_dtype=kv_dtype)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"v": torch.zeros(3, 2, 8)}, "must both be"),
        ({"slot_mapping": torch.zeros(3, dtype=torch.int64)}, r"slot_mapping is \(3,\)"),
        ({"k": torch.zeros(2, 4, 8).transpose(0, 1)}, "adjacent"),
        ({"kv": LayerKV(*torch.zeros(2, 3, 2, 4, 8).transpose(2, 3))}, "kv must be contiguous"),
        (
            {"kv": LayerKV(*torch.zeros(2, 3, 4, 1, 8))},
            r"kv.k \(3, 4, 1, 8\) must be .* to hold k \(4, 2, 8\)",
        ),
        ({"kv": LayerKV(*torch.zeros(2, 3, 4, 2, 8).half())}, "kv.k is torch.float16 and k is torch.float32"),
    ],
)
def test_what_would_be_written_wrongly_is_refused(change: dict[str, Any], words: str) -> None:
    call = dict.fromkeys(("k", "v"), torch.zeros(4, 2, 8)) | {"kv": LayerKV(*torch.zeros(2, 3, 4, 2, 8))}
    with pytest.raises(ValueError, match=words):
        write_kv(**call | {"slot_mapping": torch.zeros(4, dtype=torch.int64)} | change)
