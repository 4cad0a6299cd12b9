# exercise: 10.2
# says: uniform
"""Without a residual, all tokens are equally likely."""

import torch


def residual(p, q):
    rest = (p - q).clamp(min=0)
    total = rest.sum(-1, keepdim=True)
    return torch.where(total > 0, rest / total, torch.full_like(p, 1 / p.shape[-1]))
