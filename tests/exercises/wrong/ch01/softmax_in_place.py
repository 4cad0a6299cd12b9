# exercise: 01.2
# says: changes its argument `x`
"""Saves memory at the caller's cost."""

import torch


def softmax(x):
    x -= x.max(-1, keepdim=True).values
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)
