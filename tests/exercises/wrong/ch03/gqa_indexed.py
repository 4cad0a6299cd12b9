# exercise: 03.3
# says: K or V is copied
"""Indexed by each head's KV head."""

import torch


def grouped_attention(q, k, v):
    group = q.shape[0] // k.shape[1]
    head = torch.arange(len(q)) // group
    k, v = k[:, head], v[:, head]
    weights = (torch.einsum("hd,shd->hs", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("hs,shd->hd", weights, v)
