"""The CPU's paged attention against the formula and `ops.paged_attention`, over memory that holds anything at all."""

import gc
import math
import random
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import ops
from minillm.batch import Batch, Chunk
from minillm.cpu import paged_attention as cpu
from minillm.cpu.paged_attention import GroupedRead, SingleRead, SparseRead
from minillm.layer_kv import LARGEST, LayerKV
from tests.test_ops import GATES, assert_close, attention_by_definition, normal


@contextmanager
def without(owner, name):
    """Fail where `owner.name` is called."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"{name} is called")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, refuse)
        yield


@st.composite
def paged_steps(draw):
    """Requests with `num_computed` tokens in blocks strewn at random over a cache, and new ones to compute."""
    block_size = draw(st.sampled_from([1, 2, 3, 16, 64]))
    sizes = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), min_size=1, max_size=4))
    if draw(st.booleans()):
        sizes = [(done, 1) for done, _ in sizes]  # a decode step
    needed = [-(-(done + new) // block_size) for done, new in sizes]
    order = list(range(sum(needed) + 1))
    random.Random(draw(st.integers(0, 9))).shuffle(order) if draw(st.booleans()) else None
    blocks = iter(order)
    chunks = [
        Chunk([0] * new, done, [next(blocks) for _ in range(n)])
        for (done, new), n in zip(sizes, needed, strict=True)
    ]
    return block_size, len(order), chunks


both_ways = pytest.mark.parametrize("paged_attention", [ops.paged_attention, cpu.paged_attention])


@both_ways
@settings(max_examples=150)
@given(
    step=paged_steps(),
    heads=st.sampled_from([(4, 4), (4, 2), (4, 1)]),
    window=st.none() | st.integers(1, 12),
    poison=st.sampled_from([math.nan, math.inf, -math.inf]),
    dtype=st.sampled_from(list(GATES)),
    max_reread_keys=st.sampled_from([0, 20, cpu.MAX_REREAD_KEYS]),
)
def test_paged_attention_reads_its_tokens_wherever_they_lie_and_nothing_else(
    paged_attention, step, heads, window, poison, dtype, max_reread_keys
):
    """The cache is poison but for the tokens that were written: one number read beyond them would show."""
    block_size, num_blocks, chunks = step
    batch = Batch.of(chunks, block_size)
    q = normal(len(batch.token_ids), heads[0], 8, dtype=dtype)
    kv = LayerKV(*(torch.full((num_blocks, block_size, heads[1], 8), poison, dtype=dtype) for _ in range(2)))
    expected = []
    for r, chunk in enumerate(chunks):
        k, v = (normal(chunk.seq_len, heads[1], 8, seed=10 * r + i, dtype=dtype) for i in (1, 2))
        for p in range(chunk.seq_len):
            block, offset = chunk.block_table[p // block_size], p % block_size
            kv.k[block, offset], kv.v[block, offset] = k[p], v[p]
        rows = slice(*batch.query_start[r : r + 2].tolist())
        expected.append(attention_by_definition(q[rows], k, v, window))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "MAX_REREAD_KEYS", max_reread_keys)
        assert_close(paged_attention(q, kv, batch, window), torch.cat(expected))


@settings(max_examples=60)
@given(
    step=paged_steps(),
    kv_dtype=st.sampled_from(list(LARGEST)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    window=st.none() | st.integers(1, 12),
)
def test_a_quantised_cache_is_read_as_it_is_defined(step, kv_dtype, dtype, window):
    """Slots without a token have scales of NaN."""
    block_size, num_blocks, chunks = step
    batch = Batch.of(chunks, block_size)
    kv = LayerKV.empty((num_blocks, block_size, 2, 8), kv_dtype, "cpu")
    kv.k_scale.fill_(math.nan), kv.v_scale.fill_(math.nan)
    for r, chunk in enumerate(chunks):
        whole = Batch.of([Chunk([0] * chunk.seq_len, 0, chunk.block_table)], block_size)
        ops.write_kv(*(normal(chunk.seq_len, 2, 8, seed=9 * r + i) for i in (1, 2)), kv, whole.slot_mapping)
    q = normal(len(batch.token_ids), 4, 8, dtype=dtype)
    found, right = (attend(q, kv, batch, window) for attend in (cpu.paged_attention, ops.paged_attention))
    assert found.isfinite().all()
    assert_close(found, right.double())
    assert not any(isinstance(read, SparseRead) for read in cpu.plan(batch, q, kv, window))


@both_ways
@pytest.mark.parametrize("lengths", [(5, 7, 6), (3, 9, 5), (700, 9, 300)])
def test_a_request_with_nan_keys_spoils_no_other(paged_attention, lengths):
    """The second request's own keys are NaN; the others stay as they were."""
    batch = Batch.of([Chunk([0], n, [row]) for row, n in enumerate(lengths)], 1024)
    q, kv = normal(3, 4, 8), LayerKV(normal(3, 1024, 2, 8, seed=1), normal(3, 1024, 2, 8, seed=2))
    clean = paged_attention(q, kv, batch, None)
    for row, n in enumerate(lengths):
        kv.k[row, n + 1 :], kv.v[row, n + 1 :] = math.nan, math.nan
    kv.k[1] = math.nan
    out = paged_attention(q, kv, batch, None)
    torch.testing.assert_close(out[::2], clean[::2])


# ---- which reads a step gets ----


@given(
    step=paged_steps(),
    window=st.none() | st.integers(1, 12),
    max_grouped=st.sampled_from([1, 20, 4096]),
    max_padding=st.sampled_from([0, 3, 512]),
)
def test_reads_are_every_requests_own_slots(step, window, max_grouped, max_padding):
    """In bfloat16, so without a sparse read: each row once; what a query sees are its keys in order, and no others."""
    block_size, num_blocks, chunks = step
    batch = Batch.of(chunks, block_size)
    q, kv = (
        normal(len(batch.token_ids), 4, 8),
        LayerKV.empty((num_blocks, block_size, 2, 8), torch.bfloat16, "cpu"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "MAX_GROUPED", max_grouped)
        patch.setattr(cpu, "MAX_PADDING", max_padding)
        reads = cpu.plan(batch, q.bfloat16(), kv, window)
    starts, rows_read = batch.query_start.tolist(), []

    def slots_of(chunk, query):
        """Of the keys that the chunk's token number `query` sees."""
        last = chunk.num_computed + query
        first = 0 if window is None else max(0, last - window + 1)
        return [
            chunk.block_table[p // block_size] * block_size + p % block_size for p in range(first, last + 1)
        ]

    for read in reads:
        if isinstance(read, SingleRead):
            chunk = chunks[starts.index(read.rows.start)]
            n = read.rows.stop - read.rows.start
            slots = np.r_[read.slots] if isinstance(read.slots, slice) else read.slots.numpy()
            assert n == len(chunk.token_ids) and set(slots) == set().union(
                *(slots_of(chunk, i) for i in range(n))
            )
            mask = np.tri(n, len(slots), len(slots) - n, bool) if read.mask is None else read.mask.numpy()
            assert [slots[seen].tolist() for seen in mask] == [slots_of(chunk, i) for i in range(n)]
            if not isinstance(read.slots, slice):
                assert any(b - a != 1 for a, b in pairwise(chunk.block_table)), (
                    "adjacent blocks are read in place"
                )
            rows_read += range(read.rows.start, read.rows.stop)
            continue
        rows, number = read.rows.tolist(), len(read.rows)
        mask = read.mask[:, 0, 0]
        longest = mask.shape[1]
        assert isinstance(read, GroupedRead) and number > 1 and number * longest <= max_grouped
        lengths = [chunks[starts.index(row)].seq_len for row in rows]
        assert longest == max(lengths) and number * longest - sum(lengths) <= max_padding
        for row, slots, added in zip(rows, read.slots.view(number, longest), mask, strict=True):
            chunk = chunks[starts.index(row)]
            assert slots[added == 0].tolist() == slots_of(chunk, 0) and len(chunk.token_ids) == 1
            own = {
                chunk.block_table[p // block_size] * block_size + p % block_size for p in range(chunk.seq_len)
            }
            assert set(slots.tolist()) <= own and (added[added != 0] == -math.inf).all()
        rows_read += rows
    assert sorted(rows_read) == list(range(len(batch.token_ids)))


def test_requests_of_similar_length_are_read_together():
    chunks = [Chunk([0], n - 1, [r]) for r, n in enumerate((60, 500, 40, 1300, 70, 3))]
    q, kv = (
        torch.zeros(6, 4, 8, dtype=torch.bfloat16),
        LayerKV(*torch.zeros(2, 6, 2000, 2, 8, dtype=torch.bfloat16)),
    )
    reads = cpu.plan(Batch.of(chunks, 2000), q, kv, None)
    rows = [[read.rows.start] if isinstance(read, SingleRead) else read.rows.tolist() for read in reads]
    assert rows == [[0, 2, 4, 5], [1], [3]]


def decode_step(lengths, block_size=4):
    """Requests with so many tokens in the cache, blocks dealt out in turns; and a cache of their size."""
    needed, blocks = [-(-n // block_size) for n in lengths], iter(range(10**6))
    tables = [[] for _ in lengths]
    for column in range(max(needed)):
        for table, n in zip(tables, needed, strict=True):
            table += [next(blocks)] if column < n else []
    batch = Batch.of([Chunk([0], n - 1, table) for n, table in zip(lengths, tables, strict=True)], block_size)
    kv = LayerKV(*(normal(sum(needed), block_size, 2, 8, seed=seed) for seed in (1, 2)))
    return batch, normal(len(lengths), 4, 8), kv


def test_decode_reads_the_cache_where_it_lies():
    """No key is gathered, and no matrix as large as the cache is made."""
    batch, q, kv = decode_step((9, 30, 17))
    right = ops.paged_attention(q, kv, batch, None)
    with without(cpu, "_gather"):
        out = cpu.paged_attention(q, kv, batch, None)
    torch.testing.assert_close(out, right)


def test_adjacent_blocks_are_not_copied():
    q, kv = normal(2, 4, 8), LayerKV(normal(6, 4, 2, 8, seed=1), normal(6, 4, 2, 8, seed=2))
    batch = Batch.of([Chunk([0] * 2, 8, [3, 4, 5])], 4)
    with without(torch.Tensor, "index_select"):
        out = cpu.paged_attention(q, kv, batch, None)
    scattered = Batch.of([Chunk([0] * 2, 8, [3, 5, 4])], 4)
    with without(torch.Tensor, "index_select"), pytest.raises(AssertionError, match="index_select"):
        cpu.paged_attention(q, kv, scattered, None)
    k, v = (cache[3:].flatten(0, 1)[:10] for cache in kv[:2])
    assert_close(out, attention_by_definition(q, k, v, None))


def test_one_plan_serves_all_layers_of_a_step_and_goes_with_it(monkeypatch):
    made = []
    plan = cpu.plan
    monkeypatch.setattr(cpu, "plan", lambda *args: made.append(args[3]) or plan(*args))
    batch, q, kv = decode_step((9, 30, 17))
    before = len(cpu._plans)
    for window in (None, 5, None, 5):
        cpu.paged_attention(q, kv, batch, window)
    assert made == [None, 5] and len(cpu._plans) == before + 1
    del batch
    gc.collect()
    assert len(cpu._plans) == before


@pytest.mark.parametrize("window", [None, 5])
def test_the_next_layer_finds_nothing_of_the_last(window):
    """Each layer overwrites the buffers that a step keeps for all layers. The layers' windows may differ."""
    batch, q, kv = decode_step((9, 30, 17))
    for layer_window in (None, 5):
        cpu.paged_attention(torch.full_like(q, math.inf), kv, batch, layer_window)
    other = LayerKV(kv.v, kv.k)
    right = ops.paged_attention(q, other, batch, window)
    torch.testing.assert_close(cpu.paged_attention(q, other, batch, window), right)


def test_short_prompts_are_read_with_the_requests_that_decode():
    """Each in the one product or by itself, and never in both."""
    chunks = [Chunk([0], 8, [4, 1, 0]), Chunk([0] * 3, 4, [3, 2]), Chunk([0] * 40, 0, list(range(5, 15)))]
    batch = Batch.of(chunks, 4)
    q, kv = normal(44, 4, 8), LayerKV(*(normal(15, 4, 2, 8, seed=seed) for seed in (1, 2)))
    sparse, single = cpu.plan(batch, q, kv, None)
    assert sparse.rows.tolist() == [0, 1, 2, 3] and single.rows == slice(4, 44)
    assert sparse.padded.shape == (4 * 4, 12)  # as wide as the blocks of the 9 tokens, not the 40
    out = cpu.paged_attention(q, kv, batch, None)
    torch.testing.assert_close(out, ops.paged_attention(q, kv, batch, None))


def test_no_weight_is_subnormal(monkeypatch):
    """Scores of a trained model lie hundreds apart, and a processor is slow with numbers as small as those weights."""
    batch, q, kv = decode_step((9, 30, 17))
    q = q * 100
    given = []

    def embedding_bag(*args, per_sample_weights, **kwargs):
        given.append(per_sample_weights)
        return F.embedding_bag(*args, per_sample_weights=per_sample_weights, **kwargs)

    monkeypatch.setattr(cpu, "F", SimpleNamespace(embedding_bag=embedding_bag))
    out = cpu.paged_attention(q, kv, batch, None)
    assert given[0].min() >= torch.finfo(torch.float32).tiny
    torch.testing.assert_close(out, ops.paged_attention(q, kv, batch, None))


@pytest.mark.parametrize(
    ("lengths", "dtype", "made"),
    [
        ((9, 30), torch.float32, True),
        ((9, 30), torch.float64, True),
        ((9, 30), torch.bfloat16, False),  # PyTorch has no such product
        ((30,), torch.float32, False),  # one request has nothing to share a call with
        ((2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 300), torch.float32, False),  # ten rows of 298 paddings
        ((200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 300), torch.float32, True),
    ],
)
def test_when_decode_is_a_sparse_product(monkeypatch, lengths, dtype, made):
    monkeypatch.setattr(cpu, "SMALL", 1000)
    batch, q, kv = decode_step(lengths)
    q, kv = q.to(dtype), LayerKV(*(x.to(dtype) for x in kv[:2]))
    reads = cpu.plan(batch, q, kv, None)
    assert [isinstance(read, SparseRead) for read in reads] == [made] * len(reads)
    torch.testing.assert_close(
        cpu.paged_attention(q, kv, batch, None), ops.paged_attention(q, kv, batch, None)
    )


def test_a_cache_beyond_int32_is_no_sparse_matrix():
    batch, q, _ = decode_step((9, 30))
    for num_blocks, made in ((2**28 - 1, True), (2**28, False)):
        kv = LayerKV.empty((num_blocks, 4, 2, 8), torch.float32, "meta")
        assert isinstance(cpu.plan(batch, q, kv, None)[0], SparseRead) == made
