# exercise: 04.2
# says: raises IndexError
"""Every request has a new token."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    for table, start, n in zip(block_tables, num_computed, num_tokens):
        for p in range(start, start + max(n, 1)):
            slots.append(table[p // block_size] * block_size + p % block_size)
    return torch.tensor(slots, dtype=torch.int64)
