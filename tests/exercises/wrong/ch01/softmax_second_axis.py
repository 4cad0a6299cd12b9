# exercise: 01.2
# says: over the middle axis
"""Axis 1 instead of the last."""

import torch


def softmax(x):
    e = (x - x.amax(1, keepdim=True)).exp()
    return e / e.sum(1, keepdim=True)
