# exercise: 01.1
# says: NaN in
"""A softmax of one's own without the maximum taken off: exp overflows."""

import torch


def causal_attention(q, k, v):
    T = len(q)
    scores = torch.einsum("thd,shd->hts", q, k) / q.shape[-1] ** 0.5
    weights = torch.exp(scores) * torch.ones(T, T).tril()
    return torch.einsum("hts,shd->thd", weights / weights.sum(-1, keepdim=True), v)
