# exercise: 01.1
"""No mask at all: query t is given the first t + 1 keys, head by head."""

import torch


def one_head(q, k, v):
    rows = []
    for t in range(len(q)):
        scores = k[: t + 1] @ q[t] / q.shape[-1] ** 0.5
        scores = scores - scores.max()
        weights = scores.exp() / scores.exp().sum()
        rows.append(weights @ v[: t + 1])
    return torch.stack(rows)


def causal_attention(q, k, v):
    return torch.stack([one_head(q[:, h], k[:, h], v[:, h]) for h in range(q.shape[1])], dim=1)
