# exercise: 04.2
# says: block table is not used
"""Positions are slots."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = []
    for _table, start, n in zip(block_tables, num_computed, num_tokens, strict=True):
        for p in range(start, start + n):
            slots.append(p)
    return torch.tensor(slots)
