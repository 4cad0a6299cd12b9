# exercise: 10.2
# says: not equal
"""Only an equal row counts as a row without a residual."""

import torch


def residual(p, q):
    rest = (p - q).clamp(min=0)
    total = rest.sum(-1, keepdim=True)
    equal = (p == q).all(-1, keepdim=True)
    return torch.where(equal, p, rest / total)
