"""Paged attention as sparse matrices: how a CPU reads keys and values where they lie, without a kernel of ours.

Seen as one matrix, the cache has a row for each slot and KV head. Which of them a query sees is a sparse matrix, and
attention of all requests that decode, and of short prompts with them, is two products with it, for both of which
PyTorch has a kernel:

    scores = q K^T   at the places of the pattern only      sampled_addmm (a "sampled dense-dense product")
    out    = w V     the weighted sum of the rows seen      embedding_bag

No key is padded and none is copied: a block table is a compressed sparse row. On CPUs only float32 and float64 have the
first product.

Source: a page table as a sparse matrix is FlashInfer's view of it (Ye et al. 2025, arXiv 2501.01005, section 3.1).
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.batch import Batch, ReadAlone

# A prompt whose tokens read so many keys, each by itself, costs as much as a call of its own, where they share them.
MOST_KEYS = 1024

# The softmax is over rows as long as the longest. Where so few of its numbers would be scores, and it is so large, a
# long request is better read alone.
LEAST_SHARE, SMALL = 1 / 8, 2**20

# No score counts as further below its row's highest: exp(-80) is 2e-35, float32's smallest normal number 1e-38.
FURTHEST = 80.0

with warnings.catch_warnings():
    # PyTorch says once in a process that its sparse tensors may change.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 1], [0], [0.0], (1, 1))


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the N tokens see that are not `others`'; made once a step and used by every layer.

    A row stands for one query head of one token: N * H rows, and E entries, one for each key that a row sees.
    """

    rows: Tensor  # [N], of the batch's T tokens
    others: list[ReadAlone]  # the long prompts
    scores: Tensor  # sparse CSR [N * H, slots * H_kv]; each layer writes its E values
    padded: Tensor  # [N * H, S]: the scores side by side, -inf where a row has none
    places: Tensor  # [E], of the values in `padded`

    @classmethod
    def of(
        cls, batch: Batch, num_heads: int, cache_shape: torch.Size, window: int | None, dtype: torch.dtype
    ) -> "Pattern | None":
        """None where it would be of fewer than two requests, for other types, where one token sees so much more than
        the others that its row would be most of the softmax, and for a cache with more rows than int32 can count."""
        num_blocks, block_size, num_kv_heads, _ = cache_shape
        cache_rows = num_blocks * block_size * num_kv_heads
        if dtype not in (torch.float32, torch.float64) or cache_rows >= 2**31:
            return None
        starts, seq_lens = batch.query_start.numpy(), batch.seq_lens.numpy()
        num_tokens = starts[1:] - starts[:-1]
        short = (num_tokens == 1) | (num_tokens * seq_lens <= MOST_KEYS)  # [R]
        if short.sum() < 2:
            return None
        rows = np.flatnonzero(short.repeat(num_tokens))  # [N]
        requests = np.flatnonzero(short).repeat(num_tokens[short])  # [N], whose they are
        # All in int32, the half of what these passes and the products read. S is what the longest row's blocks hold.
        lengths = batch.positions.numpy()[rows].astype(np.int32) + 1  # [N]
        counts = lengths if window is None else np.minimum(lengths, window)
        blocks = -(-int(lengths.max()) // block_size)
        size = len(rows) * blocks * block_size
        if size * num_heads > SMALL and counts.sum() < LEAST_SHARE * size:
            return None
        tables = batch.block_tables.numpy()[requests, :blocks, None]  # [N, blocks, 1]
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
            torch.zeros(len(places), dtype=dtype),
            (len(row_starts) - 1, cache_rows),
        )
        padded = torch.full((len(row_starts) - 1, keys.shape[1]), -math.inf, dtype=dtype)
        others = [batch.read_alone(r) for r in np.flatnonzero(~short).tolist()]
        return cls(torch.from_numpy(rows), others, scores, padded, torch.from_numpy(places))

    def attend(self, q: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        """softmax(q k^T / sqrt(D)) v of q [N, H, D] over caches [blocks, block_size, H_kv, D]; [N, H, D]."""
        head_dim = q.shape[-1]
        self.scores.values().zero_()  # the product multiplies them by beta, and zero times infinity is no zero
        values = torch.sparse.sampled_addmm(
            self.scores,
            q.reshape(-1, head_dim),
            k_cache.view(-1, head_dim).t(),
            beta=0.0,
            alpha=head_dim**-0.5,
            out=self.scores,
        ).values()
        self.padded.view(-1).scatter_(0, self.places, values)
        # A number smaller than the smallest normal one takes a processor a hundred times as long, and is worth nothing.
        least = self.padded.amax(-1, keepdim=True).sub_(FURTHEST)
        weights = torch.maximum(self.padded, least).softmax(-1).view(-1).index_select(0, self.places)  # [E]
        out = F.embedding_bag(
            self.scores.col_indices(),
            v_cache.view(-1, head_dim),
            self.scores.crow_indices(),
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
        )
        return out.view(q.shape)
