# exercise: 05.3
"""Weights straight from torch.logsumexp."""

import torch


def join(parts, lse):
    whole = torch.logsumexp(lse, 0)
    weight = torch.nan_to_num(torch.exp(lse - whole), nan=0.0)[..., None]
    return torch.where(weight > 0, parts * weight, 0.0).sum(0), whole
