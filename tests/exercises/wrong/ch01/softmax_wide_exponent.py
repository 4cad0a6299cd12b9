# exercise: 01.2
# says: exp overflows
"""float64 instead of the maximum."""

import torch


def softmax(x):
    e = x.double().exp()
    return (e / e.sum(-1, keepdim=True)).to(x.dtype)
