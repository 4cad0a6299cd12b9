# exercise: 10.2
"""0 / 0 is replaced afterwards."""

import torch


def residual(p, q):
    rest = (p - q).clamp(min=0)
    rest = rest / rest.sum(1)[:, None]
    return torch.where(rest.isnan(), p, rest)
