# exercise: 01.1
# says: by up to 0.000681
"""Computed in float16."""

import torch


def causal_attention(q, k, v):
    t, h, d = q.shape
    scores = torch.einsum("thd,shd->hts", q, k) / d**0.5
    scores = scores.masked_fill(torch.ones(t, t).triu(1) == 1, -torch.inf)
    return torch.einsum("hts,shd->thd", scores.half().softmax(-1).float(), v)
