# exercise: 11.2
# says: row of padding writes
"""The rows that are left over keep what an earlier step put there."""

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
    return size
