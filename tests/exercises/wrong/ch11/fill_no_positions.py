# exercise: 11.2
# says: positions of the 2 requests
"""Positions are forgotten."""

def fill_buffers(buffers, batch, sizes):
    n, width = batch.block_tables.shape
    if len(batch.token_ids) != n or n > sizes[-1] or width > buffers.block_tables.shape[1]:
        return None
    size = next(size for size in sizes if size >= n)
    for name in ("token_ids", "slot_mapping", "seq_lens"):
        getattr(buffers, name)[:n].copy_(getattr(batch, name))
    buffers.block_tables[:n, :width].copy_(batch.block_tables)
    buffers.slot_mapping[n:size].fill_(-1)
    buffers.seq_lens[n:size].fill_(0)
    return size
