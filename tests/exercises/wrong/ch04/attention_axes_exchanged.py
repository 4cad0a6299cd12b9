# exercise: 04.3
# says: place by place
"""The places of the blocks are laid side by side before the blocks are."""

from minillm.ops import attend


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    k = k_cache[block_table].transpose(0, 1).flatten(0, 1)[:seq_len]
    v = v_cache[block_table].transpose(0, 1).flatten(0, 1)[:seq_len]
    return attend(q, k, v, None)
