# exercise: 10.2
# says: changes its argument
"""p is changed in place."""

import torch


def residual(p, q):
    p -= q
    p.clamp_(min=0)
    return p / p.sum(-1, keepdim=True)
