# exercise: 08.3
"""cumsum of the lengths."""

import torch


def ragged_batch(chunks, block_size):
    token_ids, positions, query_start, slots = [], [], [0], []
    for chunk in chunks:
        token_ids += chunk.token_ids
        for p in range(chunk.num_computed, chunk.num_computed + len(chunk.token_ids)):
            positions.append(p)
            slots.append(chunk.block_table[p // block_size] * block_size + p % block_size)
        query_start.append(len(token_ids))
    return (
        torch.tensor(token_ids),
        torch.tensor(positions),
        torch.tensor([0] + [len(c.token_ids) for c in chunks]).cumsum(0).to(torch.int32),
        torch.tensor(slots),
    )
