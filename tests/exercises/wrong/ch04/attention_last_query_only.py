# exercise: 04.3
# says: a query of the chunk sees the tokens after its own
"""As in a decode step: every query sees all."""

from torch.nn.functional import scaled_dot_product_attention


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    blocks = block_table[: -(-seq_len // k_cache.shape[1])]
    k = k_cache[blocks].flatten(0, 1)[:seq_len]
    v = v_cache[blocks].flatten(0, 1)[:seq_len]
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, enable_gqa=True)[0].transpose(0, 1)
