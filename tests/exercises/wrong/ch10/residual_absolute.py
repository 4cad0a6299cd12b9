# exercise: 10.2
# says: this is |p - q|
"""The absolute difference."""

import torch


def residual(p, q):
    rest = (p - q).abs()
    total = rest.sum(-1, keepdim=True)
    return torch.where(total > 0, rest / total, p)
