# exercise: 03.3
"""One query head after the other looks up its KV head."""

import torch


def grouped_attention(q, k, v):
    group = q.shape[0] // k.shape[1]
    out = []
    for h in range(q.shape[0]):
        keys, values = k[:, h // group], v[:, h // group]
        out.append((keys @ q[h] / q.shape[-1] ** 0.5).softmax(-1) @ values)
    return torch.stack(out)
