# exercise: 03.3
# says: K or V is copied
"""Keys grouped, values repeated."""

import torch


def grouped_attention(q, k, v):
    heads, d = q.shape
    kv_heads = k.shape[1]
    grouped = q.view(kv_heads, heads // kv_heads, d)
    weights = (torch.einsum("kgd,skd->kgs", grouped, k) / d**0.5).softmax(-1)
    v = v.repeat_interleave(heads // kv_heads, 1)
    return torch.einsum("hs,shd->hd", weights.reshape(heads, -1), v)
