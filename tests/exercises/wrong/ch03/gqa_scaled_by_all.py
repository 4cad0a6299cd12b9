# exercise: 03.3
# says: sqrt(D)
"""The scores are divided by the square root of the model's width."""

import torch


def grouped_attention(q, k, v):
    num_kv = k.shape[1]
    grouped = q.view(num_kv, q.shape[0] // num_kv, -1)
    weights = (torch.einsum("kgd,skd->kgs", grouped, k) / q.numel() ** 0.5).softmax(-1)
    return torch.einsum("kgs,skd->kgd", weights, v).reshape(q.shape)
