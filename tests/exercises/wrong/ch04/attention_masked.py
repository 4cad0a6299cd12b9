# exercise: 04.3
# says: 0 · NaN
"""The whole blocks are read, and what is not the request's gets a weight of zero."""

import torch


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    k, v = k_cache[block_table].flatten(0, 1), v_cache[block_table].flatten(0, 1)
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    i = torch.arange(seq_len - len(q), seq_len)[:, None]
    hidden = torch.arange(len(k)) > i
    scores = torch.einsum("nhd,shd->hns", q, k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("hns,shd->nhd", weights, v)
