# exercise: 04.3
# says: the result is wrong in 16 of 32 places
"""Query head h reads KV head h mod H_kv."""

from minillm.ops import attend


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    blocks = block_table[: -(-seq_len // k_cache.shape[1])]
    k = k_cache[blocks].flatten(0, 1)[:seq_len]
    v = v_cache[blocks].flatten(0, 1)[:seq_len]
    n = q.shape[1] // k.shape[1]
    return attend(q, k.repeat(1, n, 1), v.repeat(1, n, 1), None)
