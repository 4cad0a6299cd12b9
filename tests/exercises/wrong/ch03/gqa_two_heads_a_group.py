# exercise: 03.3
# says: by up to 1.69
"""Groups of two."""

import torch


def grouped_attention(q, k, v):
    out = torch.zeros_like(q)
    for h in range(len(q)):
        kv = min(h // 2, k.shape[1] - 1)
        out[h] = (k[:, kv] @ q[h] / q.shape[1] ** 0.5).softmax(0) @ v[:, kv]
    return out
