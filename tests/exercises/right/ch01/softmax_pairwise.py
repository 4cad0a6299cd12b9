# exercise: 01.2
"""Each probability is 1 over the sum of exp(other - own)."""

import torch


def softmax(x):
    own = x.unsqueeze(-1)
    inverse = torch.exp(x.unsqueeze(-2) - own).nan_to_num(nan=torch.inf, posinf=torch.inf).sum(-1)
    return torch.where(x == -torch.inf, torch.zeros_like(x), 1 / inverse)
