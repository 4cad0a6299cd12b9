"""Which way to attend to scattered blocks without a kernel is the fastest on a CPU?

    python benchmarks/cpu_paged_attention.py

The benchmark runs one layer of a decode step with 64 requests. The engine reads all requests in place, as products with
a sparse matrix (cpu/paged_attention.py). The other ways are:

- gather requests of similar length together;
- compute one request after another, from scattered blocks, or in place as if the blocks were adjacent;
- gather all requests at once, padded to the longest;
- loop over columns of the block tables with an online softmax, which never copies a whole history.

The ways run alternately, and the result is the median. Work that a step does once for all layers is not measured.
"""

import math
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from _rows import arguments, report
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.cpu import paged_attention as cpu
from minillm.layer_kv import LayerKV
from minillm.measure.timing import interleaved, ratio_of, spread_of

HEADS, KV_HEADS, D, BLOCK, REQUESTS = 8, 4, 32, 16, 64


def batch_of(lengths: list[int], scattered: bool) -> Batch:
    """A decode step: each request's blocks anywhere, or one after the other."""
    needed = [-(-length // BLOCK) for length in lengths]
    order = np.arange(sum(needed))
    if scattered:
        np.random.default_rng(0).shuffle(order)
    blocks = iter(order.tolist())
    return Batch.of(
        [
            Chunk([0], s - 1, array("i", [next(blocks) for _ in range(n)]))
            for s, n in zip(lengths, needed, strict=True)
        ],
        BLOCK,
    )


def without_sparse(
    q: Tensor, kv: LayerKV, batch: Batch, max_grouped: int = cpu.MAX_GROUPED
) -> Callable[[], Tensor]:
    """Return the CPU's attention over `batch` with copies of up to `max_grouped` tokens, planned now."""
    with patch.object(cpu.SparseRead, "of", lambda *_: None), patch.object(cpu, "MAX_GROUPED", max_grouped):
        attend = partial(cpu.paged_attention, q, kv, batch, None)
        attend()
    return attend


def padded(q: Tensor, kv: LayerKV, batch: Batch) -> Tensor:
    """Every row as long as the longest."""
    num_requests, width = batch.block_tables.shape
    k, v = (
        cache.index_select(0, batch.block_tables.flatten()).view(num_requests, width * BLOCK, KV_HEADS, D)
        for cache in (kv.k, kv.v)
    )
    visible = torch.arange(width * BLOCK) < batch.seq_lens[:, None]
    out = F.scaled_dot_product_attention(
        q.view(num_requests, KV_HEADS, -1, D),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=visible[:, None, None],
    )
    return out.reshape(q.shape)


def blockwise(q: Tensor, kv: LayerKV, batch: Batch, columns: int = 8) -> Tensor:
    """A few columns of every block table at a time, joined by an online softmax."""
    num_requests, width = batch.block_tables.shape
    grouped = (q / math.sqrt(D)).view(num_requests, KV_HEADS, -1, D)
    shape = (*grouped.shape[:3], 1)
    peak, total, acc = torch.full(shape, -1e30), torch.zeros(shape), torch.zeros_like(grouped)
    for start in range(0, width, columns):
        table = batch.block_tables[:, start : start + columns]
        n = table.shape[1] * BLOCK
        k, v = (
            cache.index_select(0, table.flatten()).view(num_requests, n, KV_HEADS, D).transpose(1, 2)
            for cache in (kv.k, kv.v)
        )
        beyond = start * BLOCK + torch.arange(n) >= batch.seq_lens[:, None]
        scores = (grouped @ k.transpose(2, 3)).masked_fill(beyond[:, None, None], -1e30)
        new_peak = torch.maximum(peak, scores.amax(-1, keepdim=True))
        weights, shrink = (scores - new_peak).exp(), (peak - new_peak).exp()
        total, acc, peak = (
            total * shrink + weights.sum(-1, keepdim=True),
            acc * shrink + weights @ v,
            new_peak,
        )
    return (acc / total).reshape(q.shape)


def main() -> None:
    args = arguments(__doc__, rounds=15)
    if args.device != "cpu":
        print("asks what a CPU without a kernel does best; run it with --device cpu")
        raise SystemExit(77)
    rows: list[dict[str, Any]] = []
    for shortest, longest in ((20, 120), (100, 600)):
        lengths = np.random.default_rng(1).integers(shortest, longest + 1, REQUESTS).tolist()
        scattered = batch_of(lengths, True)
        torch.manual_seed(0)
        q, num_blocks = torch.randn(REQUESTS, HEADS, D), sum(-(-s // BLOCK) for s in lengths)
        kv = LayerKV(*torch.randn(2, num_blocks, BLOCK, KV_HEADS, D))
        sides = {
            "sparse": partial(cpu.paged_attention, q, kv, scattered, None),
            "together": without_sparse(q, kv, batch_of(lengths, True)),
            "one by one": without_sparse(q, kv, batch_of(lengths, True), 1),
            "one by one, in place": without_sparse(q, kv, batch_of(lengths, False), 1),
            "all at once, padded": partial(padded, q, kv, scattered),
            "blockwise": partial(blockwise, q, kv, scattered),
        }
        right = sides["sparse"]()
        for name in ("together", "one by one", "all at once, padded", "blockwise"):
            torch.testing.assert_close(sides[name](), right)
        times, what = interleaved(sides, args.rounds), f"{shortest} to {longest} tokens"
        for name, seconds in times.items():
            rows.append({"name": f"{what}, {name}", "value": 1e3 * spread_of(seconds).median, "unit": "ms"})
            if name != "sparse":
                ratio = ratio_of(seconds, times["sparse"])
                rows.append(
                    {"name": f"{what}, {name} / sparse", "value": ratio.median, "unit": "x"}
                    | {"low": ratio.low, "high": ratio.high, "rounds": args.rounds}
                )
    report(rows, args)


if __name__ == "__main__":
    main()
