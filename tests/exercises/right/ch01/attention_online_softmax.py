# exercise: 01.1
"""Key by key with a running maximum and sum (chapter 5's idea), all heads and queries at once."""

import math

import torch


def causal_attention(q, k, v):
    num_tokens, num_heads, head_dim = q.shape
    best = torch.full((num_tokens, num_heads, 1), -math.inf)
    total = torch.zeros(num_tokens, num_heads, 1)
    out = torch.zeros_like(v)
    for j in range(num_tokens):
        score = (q[j:] * k[j]).sum(-1, keepdim=True) / math.sqrt(head_dim)  # the queries that see key j
        new = torch.maximum(best[j:], score)
        shrink, weight = torch.exp(best[j:] - new), torch.exp(score - new)
        total[j:] = total[j:] * shrink + weight
        out[j:] = out[j:] * shrink + weight * v[j]
        best[j:] = new
    return out / total
