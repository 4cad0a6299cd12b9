# exercise: 04.2
# says: the result is wrong in 9 of 9 places
"""A block of 16, whatever is asked."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    block_size = 16
    slots = []
    for table, start, n in zip(block_tables, num_computed, num_tokens):
        for p in range(start, start + n):
            slots.append(table[p // block_size] * block_size + p % block_size)
    return torch.tensor(slots, dtype=torch.int64)
