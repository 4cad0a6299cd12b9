# exercise: 04.3
# says: order of the table
"""A mask over the pool finds the blocks, in the order of the memory."""

import torch

from minillm.ops import attend


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    mine = torch.zeros(len(k_cache), dtype=torch.bool)
    mine[block_table[: -(-seq_len // k_cache.shape[1])]] = True
    k = k_cache[mine].flatten(0, 1)[:seq_len]
    v = v_cache[mine].flatten(0, 1)[:seq_len]
    return attend(q, k, v, None)
