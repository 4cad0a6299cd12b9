# exercise: 10.2
# says: over rows
"""The sum runs over the wrong axis."""

import torch


def residual(p, q):
    rest = (p - q).clamp(min=0)
    total = rest.sum(0, keepdim=True)
    return torch.where(total > 0, rest / total, p)
