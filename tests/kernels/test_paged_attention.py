"""Paged attention against float64, in every form, and what its launcher refuses."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has no build for this system")

import torch

from minillm.batch import Batch, Chunk
from minillm.kernels.paged_attention import choose_config, choose_splits, paged_attention
from minillm.layer_kv import LayerKV
from tests.kernels.cases_paged import (
    CASES,
    QUANTISED,
    against_the_definition,
    padded,
    padded_before,
    paged,
    split_against_unsplit,
)

FORMATS = pytest.mark.parametrize("kv_dtype", [torch.int8, torch.float8_e4m3fn], ids=["int8", "fp8"])


# The forms that differ most, for `make check`; the others are left to `make test`.
QUICK = {
    "decode",
    "prefill",
    "mixed",
    "head_dim 20",
    "decode, 7 heads on 1",
    "window 5",
    "decode in 4 splits, window",
}


def marked(cases: Iterable[str], quick: set[str]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in cases]


@pytest.mark.parametrize("name", marked(CASES, QUICK))
def test_float32_is_float64_to_rounding(interpreted: Callable[..., Any], name: str) -> None:
    assert interpreted(paged, **CASES[name]) <= 1e-5


@pytest.mark.parametrize(
    "name",
    marked(["decode", "prefill", "mixed", "decode in 8 splits", "mixed in 4 splits", "window 33"], {"mixed"}),
)
def test_float16_rounds_its_weights_and_no_more(interpreted: Callable[..., Any], name: str) -> None:
    assert interpreted(paged, **CASES[name], dtype=torch.float16) <= 1e-3


@FORMATS
@pytest.mark.parametrize("name", marked(QUANTISED, {"decode in 4 splits", "odd head_dim"}))
def test_a_quantised_cache_is_read_exactly(
    interpreted: Callable[..., Any], name: str, kv_dtype: torch.dtype
) -> None:
    """In float32 the stored numbers and their scales lose nothing; what quantising itself costs is not in the gate."""
    assert interpreted(paged, **QUANTISED[name], kv_dtype=kv_dtype) <= 1e-5


@FORMATS
def test_a_quantised_cache_in_float16(interpreted: Callable[..., Any], kv_dtype: torch.dtype) -> None:
    assert interpreted(paged, **QUANTISED["mixed"], kv_dtype=kv_dtype, dtype=torch.float16) <= 1e-3


@pytest.mark.parametrize("kv_dtype", [None, torch.int8, torch.float8_e4m3fn], ids=["as is", "int8", "fp8"])
def test_it_computes_what_ops_defines(interpreted: Callable[..., Any], kv_dtype: torch.dtype | None) -> None:
    assert interpreted(against_the_definition, kv_dtype) <= 1e-5


@pytest.mark.parametrize("num_splits", [2, 8])
def test_splits_do_not_change_the_result(interpreted: Callable[..., Any], num_splits: int) -> None:
    assert interpreted(split_against_unsplit, num_splits) <= 1e-6


@pytest.mark.parametrize("num_splits", [1, 4])
def test_padding_rows_read_nothing_and_are_zero(interpreted: Callable[..., Any], num_splits: int) -> None:
    interpreted(padded, num_splits)
    interpreted(padded_before, num_splits)


def test_keys_are_split_where_programs_are_few() -> None:
    """An H100's 132 multiprocessors, 8 KV heads."""
    assert choose_splits(1 * 8, max_keys=32_768, num_sms=132) == 64
    assert choose_splits(32 * 8, max_keys=8_192, num_sms=132) == 2
    assert choose_splits(128 * 8, max_keys=32_768, num_sms=132) == 1
    assert choose_splits(1 * 8, max_keys=1_024, num_sms=132) == 4
    assert choose_splits(1, max_keys=100, num_sms=132) == 1


def test_a_query_tile_holds_all_heads_of_a_token() -> None:
    assert choose_config(1, 4, 128, torch.bfloat16).block_m == 16
    assert choose_config(1, 71, 64, torch.bfloat16).block_m == 128
    assert choose_config(1, 200, 64, torch.bfloat16).block_m == 256


def test_a_request_with_drafts_takes_a_small_query_tile() -> None:
    """Five tokens of four heads are 20 rows, of which a prefill tile would be 84 % empty."""
    rows = [choose_config(n, 4, 128, torch.bfloat16).block_m for n in (1, 2, 4, 5, 8, 9, 2048)]
    assert rows == [16, 16, 16, 32, 32, 128, 128]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"q": torch.zeros(2, 32)}, r"must be \[T, H, D\]"),
        ({"q": torch.zeros(2, 5, 16)}, "number of heads a multiple"),
        ({"q": torch.zeros(2, 4, 32)}, "head_dim must be the same"),
        ({"q": torch.zeros(2, 4, 16, dtype=torch.float64)}, "float32, float16 or bfloat16"),
        ({"q": torch.zeros(4, 2, 16).transpose(0, 1)}, "adjacent"),
        ({"kv": LayerKV(*torch.zeros(2, 3, 2, 8, 16).transpose(2, 3))}, "must be contiguous"),
        ({"kv": LayerKV(*torch.zeros(2, 3, 8, 2, 16).half())}, "must be torch.float32 like q"),
        ({"window": 0}, "window is 0"),
        ({"num_splits": 3}, "power of two"),
        ({"num_splits": 128}, "power of two from 1 to 64"),
        ({"query_start": torch.zeros(4, dtype=torch.int32)}, "need 3 entries in query_start"),
        ({"seq_lens": torch.ones(2, dtype=torch.int64)}, "batch.seq_lens is torch.int64"),
        ({"block_tables": torch.zeros(2, 2, dtype=torch.int32).T}, "batch.block_tables"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(change: dict[str, Any], words: str) -> None:
    batch = Batch.of([Chunk([0], 0, [1, 2]), Chunk([0], 9, [0, 1])], block_size=8)
    fields = {name: value for name, value in change.items() if hasattr(batch, name)}
    call = {"q": torch.zeros(2, 4, 16), "window": None, "batch": replace(batch, **fields)}
    call |= {"kv": LayerKV(*torch.zeros(2, 3, 8, 2, 16))}
    call |= {name: value for name, value in change.items() if name not in fields}
    with pytest.raises(ValueError, match=words):
        paged_attention(**call)
