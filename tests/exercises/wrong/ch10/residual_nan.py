# exercise: 10.2
# says: 0 / 0
"""Zero divided by zero."""

import torch


def residual(p, q):
    rest = (p - q).clamp(min=0)
    return rest / rest.sum(-1, keepdim=True)
