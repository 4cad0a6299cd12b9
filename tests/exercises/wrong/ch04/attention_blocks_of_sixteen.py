# exercise: 04.3
# says: the result is wrong in 32 of 32 places
"""A block of 16."""

from minillm.ops import attend


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    blocks = block_table[: -(-seq_len // 16)]
    k = k_cache[blocks].flatten(0, 1)[:seq_len]
    v = v_cache[blocks].flatten(0, 1)[:seq_len]
    return attend(q, k, v, None)
