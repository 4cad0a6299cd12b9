# exercise: 04.3
# says: as if they followed
"""The first block is looked up, the others are taken to follow it."""

from minillm.ops import attend


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    k = k_cache[block_table[0] :].flatten(0, 1)[:seq_len]
    v = v_cache[block_table[0] :].flatten(0, 1)[:seq_len]
    return attend(q, k, v, None)
