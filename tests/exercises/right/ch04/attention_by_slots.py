# exercise: 04.3
"""Token by token through its slot."""

import torch

from minillm.ops import attend


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    block_size = k_cache.shape[1]
    positions = torch.arange(seq_len)
    slots = block_table.long()[positions // block_size] * block_size + positions % block_size
    k, v = (cache.view(-1, *cache.shape[2:]).index_select(0, slots) for cache in (k_cache, v_cache))
    return attend(q, k, v, None)
