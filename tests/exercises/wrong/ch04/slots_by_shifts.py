# exercise: 04.2
# says: 10 where 15 is right
"""Shifts and masks: right for powers of two only."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    for table, start, n in zip(block_tables, num_computed, num_tokens):
        for p in range(start, start + n):
            slots.append((table[p >> (block_size.bit_length() - 1)] << (block_size.bit_length() - 1)) | (p & (block_size - 1)))
    return torch.tensor(slots, dtype=torch.int64)
