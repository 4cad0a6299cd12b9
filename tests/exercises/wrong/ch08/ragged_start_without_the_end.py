# exercise: 08.3
# says: R + 1
"""query_start has only the starts."""

import torch


def ragged_batch(chunks, block_size):
    ids, positions, starts, slots = [], [], [], []
    for c in chunks:
        starts.append(len(ids))
        ids += c.token_ids
        places = range(c.num_computed, c.num_computed + len(c.token_ids))
        positions += places
        slots += [c.block_table[p // block_size] * block_size + p % block_size for p in places]
    return (
        torch.tensor(ids),
        torch.tensor(positions),
        torch.tensor(starts, dtype=torch.int32),
        torch.tensor(slots),
    )
