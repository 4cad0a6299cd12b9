# exercise: 04.3
# says: the last, half-full block
"""seq_len // block_size blocks: the rest is lost."""

from minillm.ops import attend


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    full = block_table[: seq_len // k_cache.shape[1]]
    k, v = k_cache[full].flatten(0, 1), v_cache[full].flatten(0, 1)
    return attend(q, k, v, None)
