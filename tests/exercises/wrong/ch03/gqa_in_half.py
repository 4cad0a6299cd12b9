# exercise: 03.3
# says: by up to 0.000468
"""Weights in float16."""

import torch


def grouped_attention(q, k, v):
    heads, d = q.shape
    kv_heads = k.shape[1]
    grouped = q.view(kv_heads, heads // kv_heads, d)
    weights = (torch.einsum("kgd,skd->kgs", grouped, k) / d**0.5).half().softmax(-1).float()
    return torch.einsum("kgs,skd->kgd", weights, v).reshape(heads, d)
