import dataclasses
from array import array
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.batch import Batch, Chunk


@st.composite
def steps(draw):
    """A block size, and chunks of requests whose blocks are strewn over the cache, some allocated ahead."""
    block_size = draw(st.integers(1, 5))
    sizes = draw(
        st.lists(st.tuples(st.integers(0, 12), st.integers(1, 7), st.integers(0, 2)), min_size=1, max_size=5)
    )
    if draw(st.booleans()):
        sizes = [(done, 1, ahead) for done, _, ahead in sizes]  # a decode step
    needed = [-(-(done + new) // block_size) + ahead for done, new, ahead in sizes]
    order = st.permutations(range(sum(needed))) | st.just(list(range(sum(needed))))
    blocks, table = iter(draw(order)), draw(st.sampled_from([list, partial(array, "i")]))
    token_ids = st.integers(0, 99)
    return block_size, [
        Chunk(
            draw(st.lists(token_ids, min_size=new, max_size=new)),
            done,
            table([next(blocks) for _ in range(n)]),
        )
        for (done, new, _), n in zip(sizes, needed, strict=True)
    ]


@given(steps())
def test_a_batch_is_its_chunks_laid_end_to_end(step):
    block_size, chunks = step
    batch = Batch.of(chunks, block_size)
    assert batch.chunks == tuple(chunks)
    assert batch.query_start.tolist() == [
        sum(len(c.token_ids) for c in chunks[:r]) for r in range(len(chunks) + 1)
    ]
    for r, chunk in enumerate(chunks):
        rows = slice(*batch.query_start[r : r + 2].tolist())
        table = batch.block_tables[r].tolist()
        assert batch.seq_lens[r] == chunk.seq_len == chunk.num_computed + len(chunk.token_ids)
        assert table[: len(chunk.block_table)] == list(chunk.block_table)
        assert not any(table[len(chunk.block_table) :])
        assert batch.token_ids[rows].tolist() == chunk.token_ids
        positions = batch.positions[rows].tolist()
        assert positions == list(range(chunk.num_computed, chunk.seq_len))
        blocks = [divmod(slot, block_size) for slot in batch.slot_mapping[rows].tolist()]
        assert blocks == [(chunk.block_table[p // block_size], p % block_size) for p in positions]


@given(steps())
def test_no_two_tokens_share_a_slot(step):
    block_size, chunks = step
    slots = Batch.of(chunks, block_size).slot_mapping.tolist()
    assert len(set(slots)) == len(slots)


def test_types():
    batch = Batch.of([Chunk([7, 8], 3, [0, 1]), Chunk([9], 0, [2])], 4)
    assert batch.token_ids.dtype == batch.positions.dtype == batch.slot_mapping.dtype == torch.int64
    assert batch.query_start.dtype == batch.seq_lens.dtype == batch.block_tables.dtype == torch.int32
    assert batch.block_tables.shape == (2, 2)


def test_a_batch_cannot_be_changed():
    batch = Batch.of([Chunk([1], 0, [0])], 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.positions = batch.token_ids


@pytest.mark.parametrize("token_ids", [[1], [1, 2, 3]])
def test_a_block_table_too_short_for_the_tokens_is_an_error(token_ids):
    for others in ([], [Chunk([1], 11, [1, 2, 3])]):
        with pytest.raises(IndexError):
            Batch.of([Chunk(token_ids, 4, [0]), *others], 4)
