# exercise: 03.3
# says: uses KV head h % H_kv
"""repeat sets the heads 0 1 0 1, where the model has 0 0 1 1."""

import torch


def grouped_attention(q, k, v):
    group = q.shape[0] // k.shape[1]
    k, v = k.repeat(1, group, 1), v.repeat(1, group, 1)
    weights = (torch.einsum("hd,shd->hs", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("hs,shd->hd", weights, v)
