# exercise: 01.1
# says: where is the mask?
"""Full attention."""

import torch


def causal_attention(q, k, v):
    scores = torch.einsum("thd,shd->hts", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hts,shd->thd", torch.softmax(scores, dim=-1), v)
