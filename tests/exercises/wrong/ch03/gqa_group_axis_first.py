# exercise: 03.3
# says: in the wrong order
"""The result comes out as [group, H_kv, D] and is flattened as it is."""

import torch


def grouped_attention(q, k, v):
    num_kv = k.shape[1]
    grouped = q.view(num_kv, q.shape[0] // num_kv, -1)
    weights = (torch.einsum("kgd,skd->kgs", grouped, k) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("kgs,skd->gkd", weights, v).reshape(q.shape)
