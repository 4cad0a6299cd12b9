# exercise: 10.2
# says: Clip before you take the sum
"""Divided by the sum of |p - q|, then clipped."""

import torch


def residual(p, q):
    rest = p - q
    total = rest.abs().sum(-1, keepdim=True)
    return torch.where(total > 0, (rest / total).clamp(min=0), p)
