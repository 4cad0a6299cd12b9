# exercise: 03.3
# says: K or V is copied
"""A copy for each query head, one after another."""

import torch


def grouped_attention(q, k, v):
    group, rows = q.shape[0] // k.shape[1], []
    for h, row in enumerate(q):
        keys, values = k[:, h // group].clone(), v[:, h // group].clone()
        rows.append((keys @ row / len(row) ** 0.5).softmax(0) @ values)
    return torch.stack(rows)
