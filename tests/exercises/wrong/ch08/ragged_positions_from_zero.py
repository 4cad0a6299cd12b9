# exercise: 08.3
# says: cached before
"""Positions count the tokens of the chunk."""

import torch


def ragged_batch(chunks, block_size):
    ids, positions, starts, slots = [], [], [0], []
    for c in chunks:
        places = list(range(len(c.token_ids)))
        ids += c.token_ids
        positions += places
        slots += [c.block_table[p // block_size] * block_size + p % block_size for p in places]
        starts.append(len(ids))
    return (
        torch.tensor(ids),
        torch.tensor(positions),
        torch.tensor(starts, dtype=torch.int32),
        torch.tensor(slots),
    )
