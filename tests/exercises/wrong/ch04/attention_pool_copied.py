# exercise: 04.3
# says: the whole pool
"""The pool is laid out as one row a slot by a copy, and then the request's slots are picked."""

import torch

from minillm.ops import attend


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    block_size = k_cache.shape[1]
    positions = torch.arange(seq_len)
    slots = block_table[positions // block_size] * block_size + positions % block_size
    k_rows = torch.cat(list(k_cache))  # [num_blocks * block_size, H_kv, D]
    v_rows = torch.cat(list(v_cache))
    return attend(q, k_rows[slots], v_rows[slots], None)
