# exercise: 08.3
# says: list index out of range
"""The first table for all."""

import torch


def ragged_batch(chunks, block_size):
    token_ids, positions, query_start, slots = [], [], [0], []
    for chunk in chunks:
        token_ids += chunk.token_ids
        for p in range(chunk.num_computed, chunk.num_computed + len(chunk.token_ids)):
            positions.append(p)
            slots.append(chunks[0].block_table[p // block_size] * block_size + p % block_size)
        query_start.append(len(token_ids))
    return (
        torch.tensor(token_ids),
        torch.tensor(positions),
        torch.tensor(query_start, dtype=torch.int32),
        torch.tensor(slots),
    )
