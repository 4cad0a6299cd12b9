# exercise: 03.3
"""matmul with the KV heads as a batch."""

import torch


def grouped_attention(q, k, v):
    heads, d = q.shape
    g = q.reshape(k.shape[1], -1, d)
    p = torch.matmul(g, k.permute(1, 2, 0)).div(d**0.5).softmax(2)
    return torch.matmul(p, v.transpose(0, 1)).flatten(0, 1)
