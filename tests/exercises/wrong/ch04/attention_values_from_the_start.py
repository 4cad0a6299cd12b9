# exercise: 04.3
# says: the values are not
"""The keys go through the table, the values do not."""

from minillm.ops import attend


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    k = k_cache[block_table].flatten(0, 1)[:seq_len]
    v = v_cache.flatten(0, 1)[:seq_len]
    return attend(q, k, v, None)
