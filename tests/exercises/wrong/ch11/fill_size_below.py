# exercise: 11.2
# says: has no row for
"""The nearest size, which may be smaller."""

def fill_buffers(buffers, batch, sizes):
    num_requests, width = batch.block_tables.shape
    if len(batch.token_ids) != num_requests:
        return None
    if num_requests > sizes[-1] or width > buffers.block_tables.shape[1]:
        return None
    size = min(sizes, key=lambda size: abs(size - num_requests))
    num_requests = min(num_requests, size)
    for name in ("token_ids", "positions", "slot_mapping", "seq_lens"):
        getattr(buffers, name)[:num_requests].copy_(getattr(batch, name)[:num_requests])
    buffers.block_tables[:num_requests, :width].copy_(batch.block_tables[:num_requests])
    buffers.slot_mapping[num_requests:size] = -1
    buffers.seq_lens[num_requests:size] = 0
    return size
