# exercise: 04.2
"""No loop over tokens."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    slots = [torch.empty(0, dtype=torch.int64)]
    for table, start, n in zip(block_tables, num_computed, num_tokens, strict=True):
        positions = torch.arange(start, start + n)
        blocks = torch.tensor(table)[torch.div(positions, block_size, rounding_mode="floor")]
        slots.append(blocks * block_size + positions.remainder(block_size))
    return torch.cat(slots)
