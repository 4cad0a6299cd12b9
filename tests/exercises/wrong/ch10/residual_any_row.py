# exercise: 10.2
# says: whole batch
"""One row without a residual decides for all."""

import torch


def residual(p, q):
    rest = (p - q).clamp(min=0)
    total = rest.sum(-1, keepdim=True)
    if (total == 0).any():
        return p.clone()
    return rest / total
