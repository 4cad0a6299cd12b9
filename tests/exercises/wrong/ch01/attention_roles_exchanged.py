# exercise: 01.1
# says: by up to 1.47
"""Keys ask queries."""

import torch


def causal_attention(q, k, v):
    t, h, d = q.shape
    scores = torch.einsum("thd,shd->hts", k, q) / d**0.5
    scores = scores.masked_fill(torch.ones(t, t).triu(1) == 1, -torch.inf)
    return torch.einsum("hts,shd->thd", scores.softmax(-1), v)
