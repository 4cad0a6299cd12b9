# exercise: 01.2
# says: for -= and +=
"""Saves memory at the caller's cost."""

import torch


def softmax(x):
    x -= x.max(-1, keepdim=True).values
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)
