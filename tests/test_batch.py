import dataclasses
from array import array
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm import batch as batches
from minillm.batch import Batch, Chunk, ReadAlone


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


@given(steps(), st.sampled_from([1, 20, 4096]), st.sampled_from([0, 3, 512]))
def test_reads_are_every_requests_own_slots(step, most, most_padding):
    """Each row once; its slots in order; padding is the request's own; what is read together is alike and small."""
    block_size, chunks = step
    batch = Batch.of(chunks, block_size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "MOST_TOGETHER", most)
        patch.setattr(batches, "MOST_PADDING", most_padding)
        reads = batch.reads
    starts, seen = batch.query_start.tolist(), []

    def slots_of(chunk):
        return [
            chunk.block_table[p // block_size] * block_size + p % block_size for p in range(chunk.seq_len)
        ]

    for read in reads:
        if isinstance(read, ReadAlone):
            chunk = chunks[starts.index(read.rows.start)]
            assert read.rows.stop - read.rows.start == len(chunk.token_ids)
            expected = slots_of(chunk)
            if isinstance(read.slots, slice):
                assert list(range(read.slots.start, read.slots.stop)) == expected
            else:
                assert read.slots.tolist() == expected
                table = chunk.block_table[: -(-chunk.seq_len // block_size)]
                assert any(b - a != 1 for a, b in pairwise(table)), "in order: read in place"
            seen += range(read.rows.start, read.rows.stop)
            continue
        rows, (number, longest) = read.rows.tolist(), read.ages.shape
        assert 1 < number == len(rows) and number * longest <= most
        lengths = []
        for row, slots, ages in zip(rows, read.slots.view(number, longest), read.ages, strict=True):
            chunk = chunks[starts.index(row)]
            assert len(chunk.token_ids) == 1
            own = slots_of(chunk)
            lengths.append(len(own))
            assert slots.tolist() == own + own[:1] * (longest - len(own))
            assert ages.tolist() == list(range(len(own) - 1, len(own) - 1 - longest, -1))
        assert longest == max(lengths) and number * longest - sum(lengths) <= most_padding
        seen += rows
    assert sorted(seen) == list(range(len(batch.token_ids)))


def test_requests_of_like_length_are_read_together():
    chunks = [Chunk([0], n - 1, [r]) for r, n in enumerate((60, 500, 40, 1300, 70, 3))]
    lengths = [
        [1] if isinstance(read, ReadAlone) else sorted((read.ages[:, 0] + 1).tolist())
        for read in Batch.of(chunks, 2000).reads
    ]
    assert lengths == [[3, 40, 60, 70], [1], [1]]


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
    with pytest.raises(IndexError):
        Batch.of([Chunk(token_ids, 4, [0])], 4)
