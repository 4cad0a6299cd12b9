# exercise: 06.3
"""The maximum norm."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    a, b = (torch.linalg.vector_norm(m, ord=float("inf"), dim=0) for m in (x, weight))
    alive = (a * b) != 0
    s = torch.ones_like(a)
    s[alive] = a[alive].pow(alpha) * b[alive].pow(alpha - 1)
    return s
