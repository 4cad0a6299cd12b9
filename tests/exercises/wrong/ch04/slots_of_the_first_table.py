# exercise: 04.2
# says: own block table
"""One table for all."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    table = block_tables[0]
    for start, n in zip(num_computed, num_tokens, strict=True):
        for p in range(start, start + n):
            slots.append(table[p // block_size] * block_size + p % block_size)
    return torch.tensor(slots)
