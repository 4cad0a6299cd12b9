"""The paged KV cache: the same memory as the contiguous one, cut into blocks that any request may hold.

A token's place is its slot: `block_table[position // block_size] * block_size + position % block_size`. Writing is the
same scatter by slots. Attention follows the block table: a kernel does it block by block where the keys lie, and so do
PyTorch's sparse products on a CPU (sparse_attention.py); where neither is to be had the blocks are gathered first, side
by side (ops.py). `benchmarks/cpu_paged_attention.py` compares the ways.

Source: Kwon et al. 2023 (arXiv 2309.06180), section 4.1.
"""

from collections.abc import Sequence

import torch

from minillm.cache.contiguous import KVCache


class PagedKVCache(KVCache):
    """`k` and `v` are [layers, num_blocks, block_size, H_kv, D]: a KVCache whose rows are short, many a request."""

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks (from, to), in every layer: a fork that writes gets its own block first."""
        source, target = (torch.tensor(blocks, device=self.k.device) for blocks in zip(*copies, strict=True))
        for memory in (self.k, self.v):
            memory.index_copy_(1, target, memory.index_select(1, source))
