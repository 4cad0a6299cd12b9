# exercise: 01.1
# says: row 0 changes with token 4, which comes later
"""A mask of -50: enough for small scores only."""

import torch


def causal_attention(q, k, v):
    t, h, d = q.shape
    scores = torch.einsum("thd,shd->hts", q, k) / d**0.5
    scores = scores - 50 * torch.ones(t, t).triu(1)
    return torch.einsum("hts,shd->thd", scores.softmax(-1), v)
