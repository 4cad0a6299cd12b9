# exercise: 01.2
# says: exp overflows
"""The mean instead of the maximum."""

import torch


def softmax(x):
    e = (x - x[x.isfinite()].mean()).exp()
    return e / e.sum(-1, keepdim=True)
