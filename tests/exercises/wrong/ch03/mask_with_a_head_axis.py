# exercise: 03.2
# says: append_mask(5, 1) has shape [1, 1, 6]
"""An axis too many."""

import torch


def append_mask(num_computed, num_tokens):
    return torch.ones(1, num_tokens, num_computed + num_tokens, dtype=torch.bool).tril(num_computed)
