# exercise: 10.2
# says: A residual counts, however small
"""1e-5 in the denominator."""

import torch


def residual(p, q):
    rest = (p - q).clamp(min=0)
    total = rest.sum(-1, keepdim=True)
    return torch.where(total > 0, rest / (total + 1e-5), p)
