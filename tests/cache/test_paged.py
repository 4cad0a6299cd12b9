import torch

from minillm.batch import Batch, Chunk
from minillm.cache.contiguous import KVCache
from minillm.cache.paged import PagedKVCache
from tests.cache.test_contiguous import config, qkv


def test_paged_and_contiguous_give_the_same_attention():
    """A text of 11 tokens in two chunks, over scattered blocks and over a row."""
    paged, row = PagedKVCache(config(), 9, 4), KVCache(config(), 1, 16)
    for start, n in ((0, 7), (7, 4)):
        step = qkv(n, seed=start)
        found = paged.attend(1, *step, Batch.of([Chunk([0] * n, start, [5, 2, 8])], 4))
        torch.testing.assert_close(found, row.attend(1, *step, Batch.of([Chunk([0] * n, start, [0])], 16)))


def test_blocks_are_copied_whole_in_every_layer_and_no_others_change():
    cache = PagedKVCache(config(), 5, 4)
    for memory in (cache.k, cache.v):
        memory.normal_(generator=torch.Generator().manual_seed(0))
    before = cache.k.clone(), cache.v.clone()
    cache.copy_blocks([(3, 0), (3, 1)])
    for memory, was in zip((cache.k, cache.v), before, strict=True):
        assert torch.equal(memory[:, :2], was[:, [3, 3]]) and torch.equal(memory[:, 2:], was[:, 2:])
