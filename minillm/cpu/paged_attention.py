"""Paged attention from PyTorch's own calls: how to read scattered blocks without a kernel.

One call per request and layer costs as much as reading hundreds of tokens, so requests share calls. There are three
ways to read, and `plan` chooses for each request of a step:

- `SparseRead`: several requests, in place, as products with a sparse matrix. On a CPU this is the usual way.
- `GroupedRead`: several requests that decode. Their tokens are copied side by side, padded to the longest.
- `SingleRead`: one request, in place if its blocks are adjacent, otherwise copied.

A plan is made once per step and used by every layer. `benchmarks/cpu_paged_attention.py` compares the three.

Source: a page table as a sparse matrix is FlashInfer's view of it (Ye et al. 2025, arXiv 2501.01005, section 3.1).
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.cpu import float8
from minillm.layer_kv import LayerKV

# A GroupedRead copies at most MAX_GROUPED tokens, and at most MAX_PADDING of them are padding: about as many as are
# read in the time that another call costs.
MAX_GROUPED, MAX_PADDING = 4096, 512

# The tokens of a chunk share their keys in a SingleRead; in a SparseRead each token after the first reads them again.
# If it reads more keys again than this, a call of its own is cheaper.
MAX_REREAD_KEYS = 1024

# The softmax of a SparseRead runs over rows as long as the longest. A SparseRead with more than SMALL numbers in them
# must fill at least this share with scores; otherwise one long request makes all others pay.
MIN_SHARE, SMALL = 1 / 8, 2**20

# Scores count as at most this far below the highest of their row: exp(-80) is 2e-35. A subnormal weight (below 1e-38)
# is worth nothing and takes a processor a hundred times as long.
MAX_DEPTH = 80.0

with warnings.catch_warnings():
    # PyTorch warns once per process that its sparse tensors may change.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 1], [0], [0.0], (1, 1))


class Read(Protocol):
    """Attention of some of the step's tokens."""

    @property
    def rows(self) -> slice | Tensor:
        """Return the tokens, as rows of the batch's T."""
        ...

    def attend(self, q: Tensor, kv: LayerKV) -> Tensor:
        """Return softmax(q k^T / sqrt(D)) v of q [N, H, D], the tokens of `rows`: [N, H, D]."""
        ...


_plans: WeakKeyDictionary[Batch, dict[Any, list[Read]]] = WeakKeyDictionary()


def paged_attention(q: Tensor, kv: LayerKV, batch: Batch, window: int | None) -> Tensor:
    """Compute what `minillm.ops.paged_attention` defines: attention of q [T, H, D] over each request's tokens."""
    key = (q.shape[1], q.dtype, kv.k.shape, kv.k.dtype, window)
    plans = _plans.setdefault(batch, {})
    if key not in plans:
        plans[key] = plan(batch, q, kv, window)
    reads = plans[key]
    if len(reads) == 1:  # its rows are all rows, in order
        return reads[0].attend(q, kv)
    out = torch.empty_like(q)
    for read in reads:
        out[read.rows] = read.attend(q[read.rows], kv)
    return out


def plan(batch: Batch, q: Tensor, kv: LayerKV, window: int | None) -> list[Read]:
    """Return reads that cover each of the step's tokens once. Only shapes, types and the device of q and kv matter."""
    lengths = [len(chunk.token_ids) for chunk in batch.chunks]
    starts = list(accumulate(lengths, initial=0))  # query_start

    def single(r: int) -> SingleRead:
        return SingleRead.of(batch.chunks[r], starts[r], batch.block_size, window, q.device)

    seq_lens = [chunk.seq_len for chunk in batch.chunks]
    short = [(n - 1) * s <= MAX_REREAD_KEYS for n, s in zip(lengths, seq_lens, strict=True)]
    read = SparseRead.of(batch, short, q, kv, window)
    if read is not None:
        return [read, *(single(r) for r, is_short in enumerate(short) if not is_short)]
    groups = [[r] for r, n in enumerate(lengths) if n > 1]
    groups += _groups(seq_lens, [r for r, n in enumerate(lengths) if n == 1])
    return [
        single(group[0]) if len(group) == 1 else GroupedRead.of(batch, group, starts, window, q)
        for group in groups
    ]


def _groups(seq_lens: list[int], requests: list[int]) -> Iterator[list[int]]:
    """Cut the requests, shortest first, into groups that are read together."""
    group: list[int] = []
    total = 0  # tokens of the group, without padding
    for r in sorted(requests, key=seq_lens.__getitem__):
        padded = (len(group) + 1) * seq_lens[r]
        if group and (padded > MAX_GROUPED or padded - total - seq_lens[r] > MAX_PADDING):
            yield sorted(group)
            group, total = [], 0
        group.append(r)
        total += seq_lens[r]
    if group:
        yield sorted(group)


def _visible(distance: NDArray[Any], window: int | None) -> NDArray[Any]:
    """Return whether a query sees a key that is `distance` positions before it."""
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def _gather(kv: LayerKV, slots: slice | Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Return K and V of these slots, [S, H_kv, D] in `dtype`; a slice of a cache that is not quantised is no copy."""

    def take(stored: Tensor) -> Tensor:
        flat = stored.flatten(0, 1)
        return flat[slots] if isinstance(slots, slice) else flat.index_select(0, slots)

    if kv.k_scale is None or kv.v_scale is None:
        return [take(kv.k), take(kv.v)]
    return [
        _values(take(stored), take(scale)).to(dtype)
        for stored, scale in ((kv.k, kv.k_scale), (kv.v, kv.v_scale))
    ]


def _values(numbers: Tensor, scale: Tensor) -> Tensor:
    """Return the values of numbers [S, H_kv, D] with scales [S, H_kv], in float32."""
    if numbers.dtype == torch.float8_e4m3fn:
        # A vector with a NaN has a scale of NaN (`ops.quantise`), so no NaN among its numbers is lost.
        return float8.scaled_down(numbers).float().mul_(scale[..., None] * float8.UNIT)
    return numbers.float().mul_(scale[..., None])


def _attend_each(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return the attention of R tokens q [R, H, D], each over its own row of k and v [R, S, H_kv, D].

    The heads that share a KV head become its queries, so that K and V are not copied for them. `mask` [R, 1, 1, S] is
    added to the scores.
    """
    num_requests, num_heads, head_dim = q.shape
    grouped = q.view(num_requests, k.shape[2], -1, head_dim)  # [R, H_kv, H / H_kv, D]
    out = F.scaled_dot_product_attention(grouped, k.transpose(1, 2), v.transpose(1, 2), mask)
    return out.reshape(num_requests, num_heads, head_dim)


@dataclass(frozen=True, slots=True)
class SingleRead:
    """One request with n tokens, over the S keys that any of them sees."""

    rows: slice
    slots: slice | Tensor  # [S]; a slice if the blocks are adjacent
    mask: (
        Tensor | None
    )  # [n, S], true where a query sees a key; None for one token, and for a plain causal mask

    @classmethod
    def of(
        cls, chunk: Chunk, start: int, block_size: int, window: int | None, device: torch.device
    ) -> "SingleRead":
        """Return the read of a chunk whose first token is row `start` of the batch."""
        num_queries, last = len(chunk.token_ids), chunk.seq_len - 1
        first = 0 if window is None else max(0, chunk.num_computed - window + 1)  # the first key that is seen
        num_keys = last - first + 1
        mask = None
        if num_queries > 1 and (num_queries < num_keys or (window is not None and window < num_keys)):
            distances = np.arange(chunk.num_computed, last + 1)[:, None] - np.arange(first, last + 1)
            mask = torch.from_numpy(_visible(distances, window)).to(device)
        rows = slice(start, start + num_queries)
        blocks = np.array(chunk.block_table[first // block_size : last // block_size + 1])
        if (blocks[1:] - blocks[:-1] == 1).all():
            begin = int(blocks[0]) * block_size + first % block_size
            return cls(rows, slice(begin, begin + num_keys), mask)
        slots = (blocks[:, None] * block_size + np.arange(block_size)).ravel()[first % block_size :][
            :num_keys
        ]
        return cls(rows, torch.from_numpy(slots).to(device), mask)

    def attend(self, q: Tensor, kv: LayerKV) -> Tensor:
        k, v = _gather(kv, self.slots, q.dtype)
        if len(q) == 1:
            return _attend_each(q, k.unsqueeze(0), v.unsqueeze(0), None)
        out = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],  # [1, H, n, D]
            k.transpose(0, 1)[None],  # [1, H_kv, S, D]
            v.transpose(0, 1)[None],
            attn_mask=self.mask,
            is_causal=self.mask is None,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out[0].transpose(0, 1)


@dataclass(frozen=True, slots=True)
class GroupedRead:
    """R requests that compute one token each, all padded to the longest, S, with their own first slot."""

    rows: Tensor  # [R]
    slots: Tensor  # [R * S]
    mask: Tensor  # [R, 1, 1, S]: 0 where the query sees the key, otherwise -inf

    @classmethod
    def of(
        cls, batch: Batch, group: list[int], starts: list[int], window: int | None, q: Tensor
    ) -> "GroupedRead":
        last = np.array([[batch.chunks[r].seq_len - 1] for r in group])  # [R, 1]
        positions = np.arange(last.max() + 1)  # [S]
        mask = np.where(_visible(last - positions, window), 0.0, -math.inf)[:, None, None]
        positions = np.where(positions <= last, positions, 0)  # [R, S]
        tables = batch.block_tables.cpu().numpy()[group]
        blocks = np.take_along_axis(tables, positions // batch.block_size, axis=1).astype(np.int64)
        slots = blocks * batch.block_size + positions % batch.block_size
        rows = torch.tensor([starts[r] for r in group], device=q.device)
        return cls(rows, torch.from_numpy(slots.ravel()).to(q.device), torch.from_numpy(mask).to(q))

    def attend(self, q: Tensor, kv: LayerKV) -> Tensor:
        k, v = (x.unflatten(0, (len(q), -1)) for x in _gather(kv, self.slots, q.dtype))  # [R, S, H_kv, D]
        return _attend_each(q, k, v, self.mask)


@dataclass(frozen=True, slots=True)
class SparseRead:
    """N tokens of several requests, which decode or compute a short chunk.

    Seen as one matrix, the cache has a row for each slot and KV head, and which of them a query sees is a sparse
    matrix: a block table is a compressed sparse row. Attention is two products with it, and PyTorch has a kernel for
    both:

        scores = q K^T   at the places of the pattern only      sampled_addmm (a "sampled dense-dense product")
        out    = w V     the weighted sum of the rows seen      embedding_bag

    No key is padded and none is copied. The pattern has N * H rows, one for each query head of a token, and E entries,
    one for each key that a row sees.
    """

    rows: Tensor  # [N]
    scores: Tensor  # sparse CSR [N * H, slots * H_kv]; each layer writes its E values
    padded: Tensor  # [N * H, S]: the scores next to each other, -inf where a row has none
    places: Tensor  # [E], of the values in `padded`

    @classmethod
    def of(
        cls, batch: Batch, requests: list[bool], q: Tensor, kv: LayerKV, window: int | None
    ) -> "SparseRead | None":
        """Return the read of these requests [R], or None where the products do not apply or do not pay: for fewer than
        two requests; off the CPU; for types other than float32 and float64, a quantised cache included; for more rows
        of the cache than int32 counts; and where one token sees so much more than the others that its row would be
        most of the softmax."""
        num_blocks, block_size, num_kv_heads, _ = kv.k.shape
        num_heads, cache_rows = q.shape[1], num_blocks * block_size * num_kv_heads
        if sum(requests) < 2 or q.device.type != "cpu" or cache_rows >= 2**31:
            return None
        if kv.k.dtype != q.dtype or q.dtype not in (torch.float32, torch.float64):
            return None
        ends = batch.query_start.numpy()[1:]
        num_tokens = ends - batch.query_start.numpy()[:-1]
        rows = np.flatnonzero(np.repeat(requests, num_tokens))  # [N]
        owners = np.arange(len(requests)).repeat(num_tokens)[rows]  # [N], the request of each row
        # All in int32, half of what these passes and the products would read. S is what the longest row's blocks hold.
        context = (batch.seq_lens.numpy() - ends)[owners]
        lengths = (rows + context + 1).astype(np.int32)  # [N], the position of each row, and 1
        counts = lengths if window is None else np.minimum(lengths, window)
        blocks = -(-int(lengths.max()) // block_size)
        size = len(rows) * blocks * block_size
        if size * num_heads > SMALL and counts.sum() < MIN_SHARE * size:
            return None
        tables = batch.block_tables.numpy()[owners, :blocks, None]  # [N, blocks, 1]
        keys = tables * (block_size * num_kv_heads) + np.arange(block_size, dtype=np.int32) * num_kv_heads
        keys = keys.reshape(len(rows), -1)  # [N, S], each key's first row of the cache
        positions = np.arange(keys.shape[1], dtype=np.int32)
        seen = positions < lengths[:, None]  # [N, S]
        if window is not None:
            seen &= positions >= lengths[:, None] - window
        places = np.flatnonzero(np.broadcast_to(seen[:, None], (len(rows), num_heads, keys.shape[1])))  # [E]
        kv_heads = np.arange(num_heads, dtype=np.int32) // (num_heads // num_kv_heads)
        columns = (keys[:, None] + kv_heads[:, None]).ravel()[places]  # [E]
        row_starts = np.zeros(len(rows) * num_heads + 1, np.int32)
        np.repeat(counts, num_heads).cumsum(out=row_starts[1:])
        scores = torch.sparse_csr_tensor(
            torch.from_numpy(row_starts),
            torch.from_numpy(columns),
            torch.zeros(len(places), dtype=q.dtype),
            (len(row_starts) - 1, cache_rows),
        )
        padded = torch.full((len(row_starts) - 1, keys.shape[1]), -math.inf, dtype=q.dtype)
        return cls(torch.from_numpy(rows), scores, padded, torch.from_numpy(places))

    def attend(self, q: Tensor, kv: LayerKV) -> Tensor:
        head_dim = q.shape[-1]
        self.scores.values().zero_()  # the product multiplies them by beta, and zero times infinity is no zero
        values = torch.sparse.sampled_addmm(
            self.scores,
            q.reshape(-1, head_dim),
            kv.k.view(-1, head_dim).t(),
            beta=0.0,
            alpha=head_dim**-0.5,
            out=self.scores,
        ).values()
        self.padded.view(-1).scatter_(0, self.places, values)
        lowest = self.padded.amax(-1, keepdim=True).sub_(MAX_DEPTH)
        weights = torch.maximum(self.padded, lowest).softmax(-1).view(-1).index_select(0, self.places)  # [E]
        out = F.embedding_bag(
            self.scores.col_indices(),
            kv.v.view(-1, head_dim),
            self.scores.crow_indices(),
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
        )
        return out.view(q.shape)
