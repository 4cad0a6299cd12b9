# exercise: 01.1
# says: the mask is off by one
"""triu(2) hides the future but for the very next token."""

import torch


def causal_attention(q, k, v):
    T, D = q.shape[0], q.shape[2]
    scores = torch.einsum("thd,shd->hts", q, k) / D**0.5
    mask = torch.triu(torch.ones(T, T), diagonal=2).bool()
    scores = scores.masked_fill(mask, float("-inf"))
    return torch.einsum("hts,shd->thd", torch.softmax(scores, dim=-1), v)
