# exercise: 01.1
# says: by up to 1.75
"""All heads read the first head's values."""

import torch


def causal_attention(q, k, v):
    t, h, d = q.shape
    scores = torch.einsum("thd,shd->hts", q, k) / d**0.5
    scores = scores.masked_fill(torch.ones(t, t).triu(1) == 1, -torch.inf)
    return torch.einsum("hts,sd->thd", scores.softmax(-1), v[:, 0])
