# exercise: 03.2
# says: anchored at the first key
"""The triangle that served without a cache, over a rectangle: its corner is at the top left."""

import torch


def append_mask(num_computed, num_tokens):
    s = num_computed + num_tokens
    return torch.ones(num_tokens, s, dtype=torch.bool).tril()
