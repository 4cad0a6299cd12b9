# exercise: 04.2
# says: has shape [0]
"""A request without new tokens ends the loop."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    for table, start, n in zip(block_tables, num_computed, num_tokens):
        if n == 0:
            break
        for p in range(start, start + n):
            slots.append(table[p // block_size] * block_size + p % block_size)
    return torch.tensor(slots, dtype=torch.int64)
