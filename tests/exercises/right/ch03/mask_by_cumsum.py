# exercise: 03.2
"""A running sum of the identity, flipped."""

import torch


def append_mask(num_computed, num_tokens):
    new = torch.eye(num_tokens).flip(1).cumsum(1).flip(1) > 0
    return torch.cat([torch.ones(num_tokens, num_computed) > 0, new], 1)
