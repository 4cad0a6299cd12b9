# exercise: 04.2
# says: the result is wrong in 7 of 9 places
"""In the order of the memory."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    for table, start, n in zip(block_tables, num_computed, num_tokens):
        for p in range(start, start + n):
            slots.append(table[p // block_size] * block_size + p % block_size)
    return torch.tensor(sorted(slots), dtype=torch.int64)
