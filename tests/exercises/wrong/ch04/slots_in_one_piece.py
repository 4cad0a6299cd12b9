# exercise: 04.2
# says: one piece
"""The first block says where the text begins, and the rest follows."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    for table, start, n in zip(block_tables, num_computed, num_tokens, strict=True):
        for p in range(start, start + n):
            slots.append(table[0] * block_size + p)
    return torch.tensor(slots)
