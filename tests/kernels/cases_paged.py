"""Paged attention and the cache's writes: cases to run interpreted or on a GPU, and launches to compile.

All that a kernel must not look at is poison: slots that hold no token are NaN, table columns that a request does not
use point outside the cache, and fresh memory is NaN.
"""

import math
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from minillm import ops
from minillm.batch import Batch, Chunk
from minillm.kernels.paged_attention import paged_attention
from minillm.layer_kv import LayerKV
from tests.kernels.offline import Launch

NOWHERE = 2**30  # as a block's number: far outside
Request = tuple[int, int]  # new tokens, tokens in the cache before them


@contextmanager
def poisoned():
    """Fresh memory is NaN (the largest number, for integers) inside."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def normal(*shape: int, seed: int, dtype: torch.dtype, device: str) -> Tensor:
    """Standard normal numbers, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def batch_of(requests: Sequence[Request], block_size: int, device: str) -> tuple[Batch, int]:
    """A batch whose requests hold scattered blocks, with stale columns beyond them; and the number of blocks."""
    needed = [math.ceil(sum(request) / block_size) for request in requests]
    order = torch.randperm(sum(needed) + 3, generator=torch.Generator().manual_seed(0)).tolist()
    chunks = [
        Chunk([0] * new, past, [order.pop() for _ in range(n)])
        for (new, past), n in zip(requests, needed, strict=True)
    ]
    batch = Batch.of(chunks, block_size, device)
    tables = torch.full((len(requests), max(needed) + 2), NOWHERE, dtype=torch.int32)
    for row, chunk in zip(tables, chunks, strict=True):
        row[: len(chunk.block_table)] = torch.tensor(chunk.block_table)
    return replace(batch, block_tables=tables.to(device)), sum(needed) + 3


def slots_of(chunk: Chunk, block_size: int) -> Tensor:
    """The slot of each of a request's tokens, [seq_len]."""
    position = torch.arange(chunk.seq_len)
    return torch.tensor(chunk.block_table)[position // block_size] * block_size + position % block_size


def attention64(q: Tensor, k: Tensor, v: Tensor, window: int | None, scale: float) -> Tensor:
    """Causal attention of one request in float64: q [n, H, D], k and v [s, H_kv, D]."""
    n, num_heads, _ = q.shape
    k, v = (x.double().repeat_interleave(num_heads // x.shape[1], 1) for x in (k, v))  # [s, H, D]
    scores = torch.einsum("nhd,shd->hns", q.double(), k) * scale
    i, j = torch.arange(len(k) - n, len(k))[:, None], torch.arange(len(k))
    hidden = (j > i) if window is None else (j > i) | (j <= i - window)
    return torch.einsum("hns,shd->nhd", scores.masked_fill(hidden, -math.inf).softmax(-1), v)


# Lengths on both sides of every edge: of a block (16), of a tile of keys (32 or 64), of a Q-block's tokens.
DECODE = [(1, length - 1) for length in (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129)]
PREFILL = [(1, 0), (15, 0), (16, 0), (17, 0), (33, 0), (65, 0)]
MIXED = [(1, 40), (17, 15), (1, 0), (15, 33), (16, 48), (64, 1), (1, 64)]
SHORT = [(1, 40), (17, 15), (1, 0), (15, 33)]

CASES: dict[str, dict[str, Any]] = {
    "decode": {"requests": DECODE, "heads": (2, 1)},
    "prefill": {"requests": PREFILL},
    "mixed": {"requests": MIXED},
    "one token": {"requests": [(1, 0)]},
    # Steps that verify drafts: 16, 32 and more rows per request, and the padding of a recorded step before its text.
    "verify 3 drafts": {"requests": [(4, length) for length in (0, 12, 13, 28, 60, 61, 125)]},
    "verify 4 drafts": {"requests": [(5, length) for length in (1, 11, 27, 59, 64)], "heads": (8, 2)},
    "verify fewer drafts": {"requests": [(5, 40), (1, 16), (3, 62), (2, 0)], "heads": (8, 2)},
    "verify 9 drafts": {"requests": [(10, 0), (10, 55)], "heads": (8, 2)},
    "verify with a window": {"requests": [(5, 40), (4, 16)], "heads": (8, 2), "window": 16},
    "verify in 4 splits": {"requests": [(5, 0), (5, 16), (5, 300)], "heads": (8, 2), "num_splits": 4},
    "many requests": {"requests": [(n % 5 + 1, 7 * n % 40) for n in range(21)], "heads": (2, 1)},
    **{f"blocks of {n}": {"requests": SHORT, "block_size": n} for n in (1, 8, 48, 1024)},
    **{f"decode, blocks of {n}": {"requests": DECODE[4:], "block_size": n} for n in (1, 48, 1024)},
    **{
        f"{h} heads on {kv}": {"requests": SHORT, "heads": (h, kv)}
        for h, kv in [(2, 2), (8, 2), (8, 1), (6, 2), (40, 1)]
    },
    **{
        f"decode, {h} heads on {kv}": {"requests": DECODE[-3:], "heads": (h, kv)}
        for h, kv in [(2, 2), (8, 2), (8, 1), (7, 1), (20, 1)]
    },
    **{f"head_dim {d}": {"requests": SHORT[:2], "head_dim": d} for d in (8, 20, 64, 80, 128, 256)},
    **{f"decode, head_dim {d}": {"requests": DECODE[5:8], "head_dim": d} for d in (8, 20, 64, 80, 128, 256)},
    **{f"window {w}": {"requests": SHORT, "window": w} for w in (1, 5, 16, 33, 1000)},
    **{f"decode, window {w}": {"requests": DECODE, "heads": (2, 1), "window": w} for w in (1, 16, 40)},
    "scale": {"requests": SHORT, "scale": 0.7},
    **{f"decode in {n} splits": {"requests": [(1, 0), (1, 16), (1, 300)], "num_splits": n} for n in (2, 8)},
    "decode in 64 splits": {"requests": [(1, 40)], "heads": (2, 1), "num_splits": 64},
    "decode in 4 splits, window": {"requests": [(1, 0), (1, 16), (1, 300)], "num_splits": 4, "window": 150},
    "mixed in 4 splits": {"requests": SHORT, "num_splits": 4, "heads": (6, 2), "head_dim": 20},
    "mixed in 2 splits, window": {"requests": SHORT, "num_splits": 2, "window": 20},
    "split by choice": {"requests": [(1, 1029)], "block_size": 64},
}
QUANTISED: dict[str, dict[str, Any]] = {
    "decode": {"requests": DECODE[5:]},
    "mixed": {"requests": SHORT},
    "blocks of 1, window": {"requests": SHORT, "block_size": 1, "window": 30},
    "decode in 4 splits": {"requests": [(1, 0), (1, 300)], "num_splits": 4},
    "odd head_dim": {"requests": SHORT[:2], "head_dim": 20, "heads": (3, 1)},
}


def paged(
    requests: Sequence[Request],
    *,
    block_size: int = 16,
    heads: tuple[int, int] = (4, 2),
    head_dim: int = 16,
    dtype: torch.dtype = torch.float32,
    kv_dtype: torch.dtype | None = None,
    window: int | None = None,
    scale: float | None = None,
    num_splits: int | None = None,
    device: str = "cpu",
) -> float:
    """How far the kernel is from float64, by norm."""
    num_heads, num_kv_heads = heads
    batch, num_blocks = batch_of(requests, block_size, device)
    # As the model hands it over: q is a part of wider rows.
    num_tokens = sum(new for new, _ in requests)
    q = normal(num_tokens, num_heads + 3, head_dim, seed=1, dtype=dtype, device=device)[:, :num_heads]
    cache = Cache(num_blocks, block_size, num_kv_heads, head_dim, dtype, kv_dtype)
    expected, start = [], 0
    for chunk in batch.chunks:
        slots = slots_of(chunk, block_size)
        rows = q[start : (start := start + len(chunk.token_ids))].cpu()
        scaling = head_dim**-0.5 if scale is None else scale
        expected.append(attention64(rows, *cache.values(slots), window, scaling))
    cache.poison_all_but(torch.cat([slots_of(chunk, block_size) for chunk in batch.chunks]))
    with poisoned():
        out = cache.attend(q, batch, window, scale=scale, num_splits=num_splits)
    assert out.dtype == dtype and out.shape == q.shape and out.is_contiguous()
    reference = torch.cat(expected)
    return ((out.cpu().double() - reference).norm() / reference.norm()).item()


class Cache:
    """Random keys and values, quantised if asked, whose unused slots can be poisoned."""

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        heads: int,
        head_dim: int,
        dtype: torch.dtype,
        kv_dtype: torch.dtype | None,
    ):
        self.layout, slots = (num_blocks, block_size), num_blocks * block_size
        self.kv = [normal(slots, heads, head_dim, seed=seed, dtype=dtype, device="cpu") for seed in (2, 3)]
        self.scales: list[Tensor] | None = None
        if kv_dtype is not None:
            self.kv = [(40 * x).clamp(-127, 127).to(kv_dtype) for x in self.kv]
            generator = torch.Generator().manual_seed(4)
            self.scales = [(0.5 + torch.rand(slots, heads, generator=generator)) / 40 for _ in range(2)]

    def values(self, slots: Tensor) -> list[Tensor]:
        """Return the dequantised K and V of these slots: [n, H_kv, D] float64."""
        if self.scales is None:
            return [x[slots].double() for x in self.kv]
        return [x[slots].double() * s[slots, :, None] for x, s in zip(self.kv, self.scales, strict=True)]

    def poison_all_but(self, slots: Tensor) -> None:
        unused = torch.ones(len(self.kv[0]), dtype=torch.bool)
        unused[slots] = False
        for tensor in self.scales or self.kv:
            tensor[unused] = math.nan

    def attend(self, q: Tensor, batch: Batch, window: int | None = None, **options: Any) -> Tensor:
        return paged_attention(q, self.layer(q.device), batch, window, **options)

    def layer(self, device: torch.device | str) -> LayerKV:
        tensors = [*self.kv, *(self.scales or [])]
        return LayerKV(*(x.view(*self.layout, *x.shape[1:]).to(device) for x in tensors))


def against_the_definition(kv_dtype: torch.dtype | None, device: str = "cpu") -> float:
    """How far the kernel is from `ops.paged_attention` over the same cache, which `ops.write_kv` filled; by norm."""
    batch, num_blocks = batch_of([(1, 40), (5, 12), (1, 0), (17, 0)], 16, device)
    kv = LayerKV.empty((num_blocks, 16, 2, 16), kv_dtype or torch.float32, device)
    for r, chunk in enumerate(batch.chunks):
        k, v = (
            normal(chunk.seq_len, 2, 16, seed=9 * r + i, dtype=torch.float32, device=device) for i in (1, 2)
        )
        ops.write_kv(k, v, kv, slots_of(chunk, 16).to(device))
    q = normal(24, 4, 16, seed=1, dtype=torch.float32, device=device)
    out, right = (attend(q, kv, batch, 30).double() for attend in (paged_attention, ops.paged_attention))
    return ((out - right).norm() / right.norm()).item()


def split_against_unsplit(num_splits: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """How far the result in splits is from the result without, by norm."""
    batch, num_blocks = batch_of([(1, 0), (1, 200), (1, 77)], 16, device)
    q = normal(3, 4, 16, seed=1, dtype=dtype, device=device)
    cache = Cache(num_blocks, 16, 2, 16, dtype, None)
    whole, split = (cache.attend(q, batch, num_splits=n) for n in (1, num_splits))
    return ((split - whole).double().norm() / whole.double().norm()).item()


def padded(num_splits: int, device: str = "cpu") -> None:
    """The padding rows of a CUDA graph, with 0 keys and a table of nonsense, read nothing and become 0."""
    batch, num_blocks = batch_of([(1, 20), (1, 3)], 16, device)
    cache = Cache(num_blocks, 16, 2, 16, torch.float32, None)
    q = normal(5, 4, 16, seed=1, dtype=torch.float32, device=device)
    alone = cache.attend(q[:2], batch, num_splits=num_splits)
    tables = torch.full((5, 4), NOWHERE, dtype=torch.int32, device=device)
    tables[:2, : batch.block_tables.shape[1]] = batch.block_tables
    recorded = replace(
        batch,
        query_start=torch.arange(6, dtype=torch.int32, device=device),
        seq_lens=torch.tensor([21, 4, 0, 0, 0], dtype=torch.int32, device=device),
        block_tables=tables,
    )
    with poisoned():
        out = cache.attend(q, recorded, num_splits=num_splits)
    assert torch.equal(out[:2], alone) and not out[2:].any()


def padded_before(num_splits: int, device: str = "cpu") -> None:
    """The padding rows of a recorded verification, before a request's tokens, change nothing for these tokens."""
    requests, rows = [(3, 20), (5, 3), (2, 0), (1, 130)], 5
    batch, num_blocks = batch_of(requests, 16, device)
    cache = Cache(num_blocks, 16, 2, 16, torch.float32, None)
    cache.poison_all_but(torch.cat([slots_of(chunk, 16) for chunk in batch.chunks]))
    q = normal(sum(new for new, _ in requests), 8, 16, seed=1, dtype=torch.float32, device=device)
    alone = cache.attend(q, batch, num_splits=num_splits)
    ends = [rows * (i + 1) for i in range(len(requests))]
    places = [end - new + i for end, (new, _) in zip(ends, requests, strict=True) for i in range(new)]
    wide = torch.full((rows * len(requests), 8, 16), 3.0, device=device)
    wide[places] = q
    starts = torch.tensor([0, *ends], dtype=torch.int32, device=device)
    with poisoned():
        out = cache.attend(wide, replace(batch, query_start=starts), num_splits=num_splits)
    torch.testing.assert_close(out[places], alone)
    assert out.isfinite().all()


def shipped(
    num_requests: int,
    num_tokens: int,
    *,
    heads: tuple[int, int] = (32, 8),
    head_dim: int = 128,
    max_model_len: int = 32_768,
    block_size: int = 16,
    dtype: torch.dtype = torch.bfloat16,
    kv_dtype: torch.dtype | None = None,
    **options: Any,
) -> Tensor:
    """A call of a real model's size on `meta`, where the compiler gate sees exactly what a GPU would get."""
    num_heads, num_kv_heads = heads
    tensors = {
        "query_start": torch.empty(num_requests + 1, dtype=torch.int32, device="meta"),
        "seq_lens": torch.empty(num_requests, dtype=torch.int32, device="meta"),
        "block_tables": torch.empty(
            num_requests, max_model_len // block_size, dtype=torch.int32, device="meta"
        ),
    }
    flat = torch.empty(num_tokens, dtype=torch.int64, device="meta")
    batch = Batch(flat, flat, flat, **tensors, block_size=block_size, chunks=())
    q = torch.empty(num_tokens, num_heads, head_dim, dtype=dtype, device="meta")
    kv = LayerKV.empty((1024, block_size, num_kv_heads, head_dim), kv_dtype or dtype, "meta")
    return paged_attention(q, kv, batch, options.pop("window", None), **options)


def _launches() -> list[Launch]:
    """Every entry of the table of configs with each kind of cache, and the forms that differ in the code itself."""
    decode, prefill = {"num_requests": 64, "num_tokens": 64}, {"num_requests": 1, "num_tokens": 2048}
    split_decode, split_mixed = {"num_requests": 1, "num_tokens": 1}, {"num_requests": 2, "num_tokens": 65}
    few, several = {"num_requests": 64, "num_tokens": 256}, {"num_requests": 64, "num_tokens": 320}
    every: list[dict[str, Any]] = [
        {},
        {"head_dim": 256},
        {"window": 4096},
        {"kv_dtype": torch.int8},
        {"kv_dtype": torch.int8, "head_dim": 256},
        {"kv_dtype": torch.float8_e4m3fn},
        {"dtype": torch.float32},
        {"dtype": torch.float32, "head_dim": 256},
    ]
    forms = [("decode", decode, every), ("prefill", prefill, every)]
    forms += [("verify 3 drafts", few, every[:1]), ("verify 4 drafts", several, every)]
    forms += [("split verify", {"num_requests": 1, "num_tokens": 5}, every[:1])]
    forms += [("split decode", split_decode, every[:1]), ("split mixed", split_mixed, every[3:4])]
    return [_launch(name, shape, options) for name, shape, many in forms for options in many]


def _launch(form: str, shape: dict[str, Any], options: dict[str, Any]) -> Launch:
    half = "dtype" not in options  # float32 under IEEE rules has no tensor cores
    return Launch(
        ", ".join([f"paged attention, {form}", *(f"{name} {value}" for name, value in options.items())]),
        shipped,
        shape | options,
        architectures=(90,)
        if options.get("kv_dtype") == torch.float8_e4m3fn
        else (80, 90),  # sm_89 brought fp8
        dots=half,
        without_dots=frozenset({"_join"}),
        max_loads=17 if half else 48,
        least_blocks=2 if form.startswith("verify") and half else 1,
        slow=True,
    )


LAUNCHES = _launches()
