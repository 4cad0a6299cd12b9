# exercise: 04.3
# says: the first query is put at the first key
"""torch's is_causal, which begins at the first key."""

from torch.nn.functional import scaled_dot_product_attention


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    blocks = block_table[: -(-seq_len // k_cache.shape[1])]
    k = k_cache[blocks].flatten(0, 1)[:seq_len]
    v = v_cache[blocks].flatten(0, 1)[:seq_len]
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
