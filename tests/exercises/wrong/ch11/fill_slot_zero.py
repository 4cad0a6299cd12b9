# exercise: 11.2
# says: slot 0 belongs to
"""Zeros are padding everywhere else."""

def fill_buffers(buffers, batch, sizes):
    num_requests, width = batch.block_tables.shape
    if len(batch.token_ids) != num_requests:
        return None
    if num_requests > sizes[-1] or width > buffers.block_tables.shape[1]:
        return None
    size = next(size for size in sizes if size >= num_requests)
    for name in ("token_ids", "positions", "slot_mapping", "seq_lens"):
        getattr(buffers, name)[:num_requests].copy_(getattr(batch, name))
    buffers.block_tables[:num_requests, :width].copy_(batch.block_tables)
    buffers.slot_mapping[num_requests:size] = 0
    buffers.seq_lens[num_requests:size] = 0
    return size
