# exercise: 03.2
# says: True where a token must not look
"""A mask in the sense of masked_fill: True is what it fills."""

import torch


def append_mask(num_computed, num_tokens):
    s = num_computed + num_tokens
    return torch.ones(num_tokens, s, dtype=torch.bool).triu(num_computed + 1)
