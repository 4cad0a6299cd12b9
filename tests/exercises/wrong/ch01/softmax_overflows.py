# exercise: 01.2
# says: exp overflows
"""The textbook formula as it stands."""

import torch


def softmax(x):
    e = torch.exp(x)
    return e / e.sum(dim=-1, keepdim=True)
