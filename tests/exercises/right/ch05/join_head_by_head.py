# exercise: 05.3
"""Head by head, only the stretches with keys."""

import torch


def join(parts, lse):
    out, sums = torch.zeros_like(parts[0]), lse.logsumexp(0)
    for h in range(lse.shape[1]):
        there = lse[:, h] != -torch.inf
        if there.any():
            out[h] = lse[there, h].softmax(0) @ parts[there, h]
    return out, sums
