# exercise: 05.3
"""torch.softmax over the stretches."""

import torch


def join(parts, lse):
    there = lse > -torch.inf
    weight = lse.softmax(0).masked_fill(~there, 0.0)
    return torch.where(there[..., None], parts, 0.0).mul(weight[..., None]).sum(0), lse.logsumexp(0)
