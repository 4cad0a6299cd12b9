# exercise: 01.1
# says: by up to 0.414
"""The scale of heads of 8 numbers for all."""

import torch


def causal_attention(q, k, v):
    t, h, d = q.shape
    scores = torch.einsum("thd,shd->hts", q, k) / 8**0.5
    scores = scores.masked_fill(torch.ones(t, t).triu(1) == 1, -torch.inf)
    return torch.einsum("hts,shd->thd", scores.softmax(-1), v)
