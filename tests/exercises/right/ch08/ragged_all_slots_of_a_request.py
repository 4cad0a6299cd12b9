# exercise: 08.3
"""All slots of each request as a tensor, of which the chunk's part is cut out."""

import torch


def ragged_batch(chunks, block_size):
    ids, positions, slots = [], [], []
    for c in chunks:
        end = c.num_computed + len(c.token_ids)
        table = torch.tensor(list(c.block_table))
        every = (table[:, None] * block_size + torch.arange(block_size)).flatten()
        ids.append(torch.tensor(list(c.token_ids)))
        positions.append(torch.arange(c.num_computed, end))
        slots.append(every[c.num_computed : end])
    starts = torch.tensor([0] + [len(i) for i in ids]).cumsum(0).int()
    return torch.cat(ids), torch.cat(positions), starts, torch.cat(slots)
