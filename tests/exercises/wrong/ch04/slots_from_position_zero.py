# exercise: 04.2
# says: after what is cached
"""The new tokens are numbered from 0."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    for table, _start, n in zip(block_tables, num_computed, num_tokens, strict=True):
        for p in range(n):
            slots.append(table[p // block_size] * block_size + p % block_size)
    return torch.tensor(slots)
