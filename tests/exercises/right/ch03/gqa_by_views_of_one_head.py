# exercise: 03.3
"""Head by head on views."""

import torch


def grouped_attention(q, k, v):
    group = q.shape[0] // k.shape[1]
    rows = []
    for h in range(q.shape[0]):
        scores = torch.mv(k[:, h // group], q[h]) * q.shape[1] ** -0.5
        rows.append(torch.mv(v[:, h // group].t(), scores.softmax(0)))
    return torch.stack(rows)
