# exercise: 04.2
# says: the result is wrong in 3 of 9 places
"""The blocks of a chunk follow its first one."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    for table, start, n in zip(block_tables, num_computed, num_tokens):
        for p in range(start, start + n):
            slots.append(table[start // block_size] * block_size + start % block_size + p - start)
    return torch.tensor(slots, dtype=torch.int64)
