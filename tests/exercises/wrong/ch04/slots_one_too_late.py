# exercise: 04.2
# says: one too far
"""num_computed is taken for the last cached position."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    for table, start, n in zip(block_tables, num_computed, num_tokens, strict=True):
        for p in range(start + 1, start + n + 1):
            slots.append(table[p // block_size] * block_size + p % block_size)
    return torch.tensor(slots)
