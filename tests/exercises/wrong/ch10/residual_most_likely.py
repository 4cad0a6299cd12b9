# exercise: 10.2
# says: most likely token of the residual alone
"""The most likely token of the residual."""

import torch


def residual(p, q):
    best = (p - q).argmax(-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, best, 1.0)
