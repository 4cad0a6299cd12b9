# exercise: 01.2
# says: masked scores
"""Replaces what is not finite, so that masked scores count as very small numbers that are not small here."""

import torch


def softmax(x):
    x = torch.nan_to_num(x, neginf=0.0)
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)
