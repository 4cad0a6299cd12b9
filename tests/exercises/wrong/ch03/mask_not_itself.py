# exercise: 03.2
# says: does not see itself
"""Strictly earlier tokens only."""

import torch


def append_mask(num_computed, num_tokens):
    i = torch.arange(num_computed, num_computed + num_tokens)[:, None]
    j = torch.arange(num_computed + num_tokens)[None, :]
    return j < i
