# exercise: 03.3
# says: by up to 0.856
"""The last row is not seen."""

import torch


def grouped_attention(q, k, v):
    heads, d = q.shape
    kv_heads = k.shape[1]
    grouped = q.view(kv_heads, heads // kv_heads, d)
    k, v = k[:-1], v[:-1]
    weights = (torch.einsum("kgd,skd->kgs", grouped, k) / d**0.5).softmax(-1)
    return torch.einsum("kgs,skd->kgd", weights, v).reshape(heads, d)
