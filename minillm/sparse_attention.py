"""Paged attention as sparse matrices: how a CPU reads keys and values where they lie, without a kernel of ours.

Seen as one matrix, the cache has a row for each slot and KV head. Which of them a query sees is a sparse matrix, and
attention of all requests that decode is two products with it, for both of which PyTorch has a kernel:

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

from minillm.batch import Batch

# The softmax is over rows as long as the longest. Where so few of its numbers would be scores, and it is so large, a
# long request is better read alone.
LEAST_SHARE, SMALL = 1 / 8, 2**20

with warnings.catch_warnings():
    # PyTorch says once in a process that its sparse tensors may change.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 1], [0], [0.0], (1, 1))


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the R requests that decode see; made once a step and used by every layer.

    A row stands for one query head of one request: R * H rows, and E entries, one for each key that a row sees.
    """

    rows: Tensor  # [R], of the batch's T tokens
    scores: Tensor  # sparse CSR [R * H, slots * H_kv]; each layer writes its E values
    padded: Tensor  # [R * H, longest]: the scores side by side, -inf where a row has no more
    places: Tensor  # [E], of the values in `padded`

    @classmethod
    def of(
        cls, batch: Batch, num_heads: int, cache_shape: torch.Size, window: int | None, dtype: torch.dtype
    ) -> "Pattern | None":
        """None where fewer than two requests decode, for other types, and where one request is so much longer than the
        others that its row would be most of the softmax."""
        if dtype not in (torch.float32, torch.float64):
            return None
        num_blocks, block_size, num_kv_heads, _ = cache_shape
        starts, seq_lens = batch.query_start.numpy(), batch.seq_lens.numpy()
        decoding = np.flatnonzero(np.diff(starts) == 1)
        if len(decoding) < 2:
            return None
        lengths = seq_lens[decoding, None]  # [R, 1]
        positions = np.arange(lengths.max())  # [S]
        seen = (
            positions < lengths if window is None else (positions < lengths) & (positions >= lengths - window)
        )
        counts = seen.sum(1)
        if seen.size * num_heads > SMALL and counts.sum() < LEAST_SHARE * seen.size:
            return None
        tables = batch.block_tables.numpy()[decoding]
        slots = tables[:, positions // block_size].astype(np.int64) * block_size
        slots += positions % block_size  # [R, S]
        kv_heads = np.arange(num_heads) // (num_heads // num_kv_heads)
        columns = slots[:, None] * num_kv_heads + kv_heads[:, None]  # [R, H, S]
        by_head = np.repeat(seen[:, None], num_heads, axis=1)  # [R, H, S]
        places = np.flatnonzero(by_head)  # [E]
        row_starts = np.concatenate([[0], np.repeat(counts, num_heads).cumsum()])
        num_rows = len(decoding) * num_heads
        scores = torch.sparse_csr_tensor(
            torch.from_numpy(row_starts),
            torch.from_numpy(columns[by_head]),
            torch.zeros(len(places), dtype=dtype),
            (num_rows, num_blocks * block_size * num_kv_heads),
        )
        padded = torch.full((num_rows, len(positions)), -math.inf, dtype=dtype)
        return cls(
            torch.from_numpy(starts[decoding].astype(np.int64)), scores, padded, torch.from_numpy(places)
        )

    def attend(self, q: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        """softmax(q k^T / sqrt(D)) v of q [R, H, D] over caches [blocks, block_size, H_kv, D]; [R, H, D]."""
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
        weights = self.padded.softmax(-1).view(-1).index_select(0, self.places)  # [E]
        out = F.embedding_bag(
            self.scores.col_indices(),
            v_cache.view(-1, head_dim),
            self.scores.crow_indices(),
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
        )
        return out.view(q.shape)
