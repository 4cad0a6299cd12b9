# exercise: 03.2
# says: append_mask(1, 6): row 1, at position 2, sees token 3
"""Right while the chunk is no longer than the cache."""

import torch


def append_mask(num_computed, num_tokens):
    mask = torch.ones(num_tokens, num_computed + num_tokens, dtype=torch.bool)
    for i in range(min(num_tokens, num_computed)):
        mask[i, num_computed + i + 1 :] = False
    return mask
