# exercise: 08.3
# says: place in the batch
"""Positions count the rows of the batch."""

import torch


def ragged_batch(chunks, block_size):
    ids, slots, starts = [], [], [0]
    for c in chunks:
        ids += c.token_ids
        for i in range(len(c.token_ids)):
            p = c.num_computed + i
            slots.append(c.block_table[p // block_size] * block_size + p % block_size)
        starts.append(len(ids))
    starts = torch.tensor(starts, dtype=torch.int32)
    return torch.tensor(ids), torch.arange(len(ids)), starts, torch.tensor(slots)
