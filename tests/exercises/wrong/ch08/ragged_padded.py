# exercise: 08.3
# says: padd
"""A rectangle, padded with 0."""

import torch


def ragged_batch(chunks, block_size):
    width = max(len(c.token_ids) for c in chunks)
    ids = torch.zeros(len(chunks), width, dtype=torch.int64)
    positions, slots = ids.clone(), ids.clone()
    starts = [0]
    for r, c in enumerate(chunks):
        for i, token in enumerate(c.token_ids):
            p = c.num_computed + i
            ids[r, i], positions[r, i] = token, p
            slots[r, i] = c.block_table[p // block_size] * block_size + p % block_size
        starts.append(starts[-1] + len(c.token_ids))
    return ids, positions, torch.tensor(starts, dtype=torch.int32), slots
