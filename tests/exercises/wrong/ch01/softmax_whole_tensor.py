# exercise: 01.2
# says: the whole tensor sums to 1
"""sum() without an axis."""

import torch


def softmax(x):
    e = torch.exp(x - x.max(-1, keepdim=True).values)
    return e / e.sum()
