# exercise: 03.2
# says: append_mask(40, 3): row 0, at position 40, does not see token 0
"""A window of eight tokens."""

import torch


def append_mask(num_computed, num_tokens):
    ones = torch.ones(num_tokens, num_computed + num_tokens, dtype=torch.bool)
    return ones.tril(num_computed) & ones.triu(num_computed - 7)
