# exercise: 03.3
# says: K or V is copied
"""Keys and values as float64."""

import torch


def grouped_attention(q, k, v):
    heads, d = q.shape
    kv_heads = k.shape[1]
    grouped = q.view(kv_heads, heads // kv_heads, d)
    k, v, grouped = k.double(), v.double(), grouped.double()
    weights = (torch.einsum("kgd,skd->kgs", grouped, k) / d**0.5).softmax(-1)
    return torch.einsum("kgs,skd->kgd", weights, v).reshape(heads, d).float()
