# exercise: 04.2
# says: block_size slots
"""The block's number is not multiplied by its size."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    for table, start, n in zip(block_tables, num_computed, num_tokens, strict=True):
        for p in range(start, start + n):
            slots.append(table[p // block_size] + p % block_size)
    return torch.tensor(slots)
