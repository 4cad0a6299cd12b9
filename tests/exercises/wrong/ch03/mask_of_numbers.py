# exercise: 03.2
# says: numbers to add to the scores
"""1 and 0 instead of True and False."""

import torch


def append_mask(num_computed, num_tokens):
    return torch.ones(num_tokens, num_computed + num_tokens).tril(num_computed)
