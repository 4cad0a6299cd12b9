# exercise: 04.3
# says: the result is wrong in 32 of 32 places
"""Each block on its own, averaged."""

from minillm.ops import attend


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    blocks = block_table[: -(-seq_len // k_cache.shape[1])]
    k = k_cache[blocks].flatten(0, 1)[:seq_len]
    v = v_cache[blocks].flatten(0, 1)[:seq_len]
    size, n = k_cache.shape[1], 0
    out = 0
    for start in range(0, seq_len - len(q) + 1, size):
        out, n = out + attend(q, k[start : start + size], v[start : start + size], None), n + 1
    return out / max(n, 1)
