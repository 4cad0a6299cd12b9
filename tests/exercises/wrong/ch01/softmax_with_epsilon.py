# exercise: 01.2
# says: by up to 0.000392
"""A large epsilon in the denominator."""

import torch


def softmax(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / (e.sum(-1, keepdim=True) + 1e-3)
