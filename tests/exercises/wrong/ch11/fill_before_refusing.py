# exercise: 11.2
# says: your function returned None, but the buffers have changed
"""The rows are copied first, and whether it fits is asked last."""

def fill_buffers(buffers, batch, sizes):
    num_requests, width = batch.block_tables.shape
    rows = min(num_requests, sizes[-1])
    width = min(width, buffers.block_tables.shape[1])
    for name in ("token_ids", "positions", "slot_mapping", "seq_lens"):
        getattr(buffers, name)[:rows] = getattr(batch, name)[:rows]
    buffers.block_tables[:rows, :width] = batch.block_tables[:rows, :width]
    if len(batch.token_ids) != num_requests or rows < num_requests or width < batch.block_tables.shape[1]:
        return None
    size = next(size for size in sizes if size >= num_requests)
    buffers.slot_mapping[num_requests:size] = -1
    buffers.seq_lens[num_requests:size] = 0
    return size
