# exercise: 11.2
# says: the recording never sees
"""The tensors are the same objects, but their memory is new."""

def fill_buffers(buffers, batch, sizes):
    n, width = batch.block_tables.shape
    if len(batch.token_ids) != n or n > sizes[-1] or width > buffers.block_tables.shape[1]:
        return None
    size = next(size for size in sizes if size >= n)
    for name in ("token_ids", "positions", "slot_mapping", "seq_lens"):
        old = getattr(buffers, name)
        new = old.clone()
        new[:n] = getattr(batch, name)
        old.data = new
    buffers.block_tables[:n, :width].copy_(batch.block_tables)
    buffers.slot_mapping[n:size].fill_(-1)
    buffers.seq_lens[n:size].fill_(0)
    return size
