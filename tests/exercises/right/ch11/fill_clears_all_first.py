# exercise: 11.2
"""Everything is cleared, and then the real rows are copied."""

import bisect


def fill_buffers(buffers, batch, sizes):
    rows, width = batch.block_tables.shape
    at = bisect.bisect_left(sizes, rows)
    if at == len(sizes) or batch.token_ids.shape[0] > rows or width > buffers.block_tables.shape[1]:
        return None
    buffers.token_ids.zero_()
    buffers.positions.zero_()
    buffers.slot_mapping.fill_(-1)
    buffers.seq_lens.zero_()
    buffers.block_tables.zero_()
    buffers.token_ids[:rows] = batch.token_ids
    buffers.positions[:rows] = batch.positions
    buffers.slot_mapping[:rows] = batch.slot_mapping
    buffers.seq_lens[:rows] = batch.seq_lens
    buffers.block_tables[:rows, :width] = batch.block_tables
    return sizes[at]
