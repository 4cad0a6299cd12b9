# exercise: 03.3
# says: K or V is copied
"""Repeated piece by piece, 64 tokens at a time."""

import torch


def grouped_attention(q, k, v):
    group = q.shape[0] // k.shape[1]
    scores = torch.cat([torch.einsum("hd,shd->hs", q, part.repeat_interleave(group, 1)) for part in k.split(64)], 1)
    weights = (scores / q.shape[-1] ** 0.5).softmax(-1)
    return sum(
        torch.einsum("hs,shd->hd", w, part.repeat_interleave(group, 1)) for w, part in zip(weights.split(64, 1), v.split(64))
    )
