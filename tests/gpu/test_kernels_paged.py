"""The cases of tests/kernels on a GPU: compiled, in the precisions that a GPU is for, and inside a CUDA graph."""

from dataclasses import replace

import pytest

pytest.importorskip("triton", reason="triton has no build for this system")

import torch

from minillm.kernels.paged_attention import paged_attention
from tests.kernels import cases_layers
from tests.kernels.cases_paged import (
    CASES,
    QUANTISED,
    Cache,
    batch_of,
    normal,
    padded,
    padded_before,
    paged,
    split_against_unsplit,
)

pytestmark = pytest.mark.gpu
LIMITS = {torch.bfloat16: 1e-2, torch.float16: 1e-3, torch.float32: 1e-5}
DTYPES = pytest.mark.parametrize("dtype", LIMITS)
FORMATS = [torch.int8, torch.float8_e4m3fn]


@pytest.fixture
def needs_fp8(request: pytest.FixtureRequest) -> None:
    if request.getfixturevalue("kv_dtype") == torch.float8_e4m3fn and torch.cuda.get_device_capability() < (
        8,
        9,
    ):
        pytest.skip(f"fp8 needs sm_89 or newer; this is {torch.cuda.get_device_name()}")


@DTYPES
@pytest.mark.parametrize("name", CASES)
def test_paged_attention(name: str, dtype: torch.dtype) -> None:
    assert paged(**CASES[name], dtype=dtype, device="cuda") <= LIMITS[dtype]


@DTYPES
@pytest.mark.parametrize("heads", [(32, 8), (28, 4), (16, 16)])
def test_paged_attention_of_real_shapes(heads: tuple[int, int], dtype: torch.dtype) -> None:
    requests = [(1, 4000), (700, 300), (1, 0), (129, 1000), (1, 127)]
    assert paged(requests, heads=heads, head_dim=128, dtype=dtype, device="cuda") <= LIMITS[dtype]


@DTYPES
@pytest.mark.parametrize("kv_dtype", FORMATS, ids=["int8", "fp8"])
@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.usefixtures("needs_fp8")
def test_a_quantised_cache(name: str, kv_dtype: torch.dtype, dtype: torch.dtype) -> None:
    assert paged(**QUANTISED[name], kv_dtype=kv_dtype, dtype=dtype, device="cuda") <= LIMITS[dtype]


@pytest.mark.parametrize("num_splits", [2, 8, 64])
def test_splits_do_not_change_the_result(num_splits: int) -> None:
    assert split_against_unsplit(num_splits, device="cuda") <= 1e-6


@pytest.mark.parametrize("num_splits", [1, 4])
def test_padding_rows_read_nothing_and_are_zero(num_splits: int) -> None:
    padded(num_splits, device="cuda")
    padded_before(num_splits, device="cuda")


def test_a_graph_captured_once_serves_other_lengths() -> None:
    """Capture with 1 token per request, replay with up to 1,000. Grid and splits depend only on the tables' width."""
    batch, num_blocks = batch_of([(1, 999), (1, 500), (1, 63)], 16, "cuda")
    cache = Cache(num_blocks, 16, 2, 64, torch.float16, None)
    q = normal(3, 8, 64, seed=1, dtype=torch.float16, device="cuda")
    kv = cache.layer("cuda")
    right = cache.attend(q, batch)
    lengths = batch.seq_lens.clone()
    static = replace(batch, seq_lens=torch.ones_like(lengths))
    paged_attention(q, kv, static, None)  # compiled before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = paged_attention(q, kv, static, None)
    static.seq_lens.copy_(lengths)
    graph.replay()
    assert torch.equal(out, right)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("kv_dtype", [None, *FORMATS], ids=["as is", "int8", "fp8"])
@pytest.mark.usefixtures("needs_fp8")
def test_write_kv(kv_dtype: torch.dtype | None, dtype: torch.dtype) -> None:
    cases_layers.write(kv_dtype=kv_dtype, dtype=dtype, device="cuda")
    cases_layers.write(num_tokens=50, heads=8, head_dim=128, kv_dtype=kv_dtype, dtype=dtype, device="cuda")


@DTYPES
def test_fused_layers(dtype: torch.dtype) -> None:
    for shape in [(1, 1), (33, 64), (50, 4096), (3, 9000), (7, 3, 128)]:
        assert cases_layers.norm(shape, dtype=dtype, device="cuda") <= LIMITS[dtype]
    for num_tokens, n in [(1, 1), (33, 64), (50, 4096), (3, 9000)]:
        assert cases_layers.add_norm(num_tokens, n, dtype=dtype, device="cuda") <= LIMITS[dtype]
    for num_tokens, heads, head_dim in [(1, 1, 2), (5, 3, 20), (50, 40, 128)]:
        assert cases_layers.turn(num_tokens, heads, head_dim, dtype=dtype, device="cuda") <= LIMITS[dtype]
    for num_tokens, m in [(1, 1), (2, 1025), (50, 14_336)]:
        assert cases_layers.gate(num_tokens, m, dtype=dtype, device="cuda") <= LIMITS[dtype]


def test_softmax_of_a_whole_vocabulary() -> None:
    assert cases_layers.probabilities(4, 151_936, device="cuda") <= 1e-5


def test_truncation_of_a_whole_vocabulary_keeps_the_same_set() -> None:
    logits = (3 * normal(4, 151_936, seed=1, dtype=torch.float32, device="cpu")).round(decimals=2)  # ties
    counts = [1, 50, 5_000, 151_936]
    assert cases_layers.top_k(logits.tolist(), counts, device="cuda") == counts
    cases_layers.top_p(logits.softmax(-1).tolist(), [0.1, 0.9, 0.99, 0.9999], device="cuda")
