# exercise: 08.3
# says: follow one another
"""The blocks are taken to follow the first."""

import torch


def ragged_batch(chunks, block_size):
    ids, positions, starts, slots = [], [], [0], []
    for c in chunks:
        places = list(range(c.num_computed, c.num_computed + len(c.token_ids)))
        ids += c.token_ids
        positions += places
        slots += [c.block_table[0] * block_size + p for p in places]
        starts.append(len(ids))
    return (
        torch.tensor(ids),
        torch.tensor(positions),
        torch.tensor(starts, dtype=torch.int32),
        torch.tensor(slots),
    )
