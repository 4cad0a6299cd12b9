# exercise: 04.3
# says: is what you are writing
"""The package's own operation."""

from minillm.batch import Batch, Chunk
from minillm.ops import Ops


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    chunk = Chunk([0] * len(q), seq_len - len(q), block_table.tolist())
    return Ops().paged_attention(q, k_cache, v_cache, Batch.of([chunk], k_cache.shape[1]), None)
