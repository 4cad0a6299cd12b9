# exercise: 11.2
# says: the recording never sees
"""New tensors are put in the place of the buffers."""

import torch


def fill_buffers(buffers, batch, sizes):
    num_requests, width = batch.block_tables.shape
    if len(batch.token_ids) != num_requests:
        return None
    if num_requests > sizes[-1] or width > buffers.block_tables.shape[1]:
        return None
    size = next(size for size in sizes if size >= num_requests)
    for name, padding in (("token_ids", 0), ("positions", 0), ("slot_mapping", -1), ("seq_lens", 0)):
        values = getattr(batch, name)
        rest = torch.full((size - num_requests,), padding, dtype=values.dtype)
        object.__setattr__(buffers, name, torch.cat([values, rest]))
    table = torch.zeros(size, buffers.block_tables.shape[1], dtype=torch.int32)
    table[:num_requests, :width] = batch.block_tables
    object.__setattr__(buffers, "block_tables", table)
    return size
