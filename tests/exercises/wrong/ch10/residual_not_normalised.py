# exercise: 10.2
# says: does not add to 1
"""The sum is less than 1."""

import torch


def residual(p, q):
    rest = (p - q).clamp(min=0)
    return torch.where(rest.sum(-1, keepdim=True) > 0, rest, p)
