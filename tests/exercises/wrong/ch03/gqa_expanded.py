# exercise: 03.3
# says: K or V is copied
"""Expanded, then reshaped, which copies."""

import torch


def grouped_attention(q, k, v):
    group = q.shape[0] // k.shape[1]
    k, v = (x[:, :, None].expand(-1, -1, group, -1).reshape(len(x), -1, x.shape[-1]) for x in (k, v))
    weights = (torch.einsum("hd,shd->hs", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("hs,shd->hd", weights, v)
