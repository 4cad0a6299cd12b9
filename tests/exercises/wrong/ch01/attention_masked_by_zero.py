# exercise: 01.1
# says: row 0 changes with token 1, which comes later
"""Future scores are multiplied by 0, which is a score like another."""

import torch


def causal_attention(q, k, v):
    t, h, d = q.shape
    scores = torch.einsum("thd,shd->hts", q, k) / d**0.5
    scores = scores * torch.ones(t, t).tril()
    return torch.einsum("hts,shd->thd", scores.softmax(-1), v)
