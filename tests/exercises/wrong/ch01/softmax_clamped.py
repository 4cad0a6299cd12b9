# exercise: 01.2
# says: clamped
"""Cuts the scores at 80 so that exp cannot overflow."""

import torch


def softmax(x):
    e = torch.exp(x.clamp(max=80))
    return e / e.sum(-1, keepdim=True)
