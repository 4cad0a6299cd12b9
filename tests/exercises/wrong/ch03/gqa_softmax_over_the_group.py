# exercise: 03.3
# says: over the heads. It must run over the tokens
"""The softmax runs over the wrong axis."""

import torch


def grouped_attention(q, k, v):
    num_kv = k.shape[1]
    grouped = q.view(num_kv, q.shape[0] // num_kv, -1)
    weights = (torch.einsum("kgd,skd->kgs", grouped, k) / q.shape[-1] ** 0.5).softmax(1)
    return torch.einsum("kgs,skd->kgd", weights, v).reshape(q.shape)
