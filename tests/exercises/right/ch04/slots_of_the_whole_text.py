# exercise: 04.2
"""All slots of each text, of which the new ones are cut out."""

import torch


def slot_mapping(block_tables, num_computed, num_tokens, block_size):
    chosen = []
    for r, table in enumerate(block_tables):
        every = [block * block_size + place for block in table for place in range(block_size)]
        chosen += every[num_computed[r] : num_computed[r] + num_tokens[r]]
    return torch.as_tensor(chosen, dtype=torch.long)
