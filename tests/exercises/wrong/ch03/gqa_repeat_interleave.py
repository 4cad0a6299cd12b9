# exercise: 03.3
# says: K or V is copied
"""K and V are repeated until there is one for each query head."""

import torch


def grouped_attention(q, k, v):
    group = q.shape[0] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    weights = (torch.einsum("hd,shd->hs", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("hs,shd->hd", weights, v)
