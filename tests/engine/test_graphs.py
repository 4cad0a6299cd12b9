"""The buffers of recorded decode steps, with a recorder that runs the step again where a GPU would replay it."""

from copy import copy
from dataclasses import replace

import pytest
import torch

from minillm.batch import Batch, Chunk
from minillm.engine.graphs import LARGEST, DecodeGraphs, ladder
from minillm.ops import Ops, write_kv
from tests.engine import tiny


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(1, [1]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (20, [1, 2, 4, 8, 16, 20]), (24, [1, 2, 4, 8, 16, 24])],
)
def test_the_ladder_ends_with_the_most(most, sizes):
    assert ladder(most) == sizes


def test_the_ladder_has_an_end():
    assert ladder(10_000)[-1] == LARGEST


class Recorder:
    def __init__(self):
        self.recorded, self.replayed = [], []

    def __call__(self, step):
        step()
        self.recorded.append(step)

        def replay():
            self.replayed.append(step)
            step()

        return replay


def padding_writes_nothing(k, v, kv, slot_mapping):
    real = slot_mapping >= 0
    write_kv(k[real], v[real], kv, slot_mapping[real])


def attention_by_tensors(q, kv, batch, window):
    """Attend as a kernel does: read everything from the batch's tensors, and nothing if a length is 0."""
    out = torch.zeros_like(q)
    lengths, tables = batch.seq_lens.tolist(), batch.block_tables.tolist()
    for r, (start, end) in enumerate(
        zip(batch.query_start[:-1].tolist(), batch.query_start[1:].tolist(), strict=True)
    ):
        if lengths[r]:
            chunk = Chunk([0] * (end - start), lengths[r] - (end - start), tables[r])
            out[start:end] = Ops().paged_attention(
                q[start:end], kv, Batch.of([chunk], batch.block_size), window
            )
    return out


def graphs_of(llm, recorder):
    runner = llm.engine.runner
    ops = replace(Ops(), write_kv=padding_writes_nothing, paged_attention=attention_by_tensors)
    cache = copy(runner.cache)  # over the same memory
    cache.ops = ops
    model = runner.model.with_ops(ops)
    return DecodeGraphs(model, cache, llm.config.max_num_seqs, llm.config.max_model_len, recorder)


def filled(llm):
    """A cache in which every slot holds something."""
    for memory in tiny.cache_tensors(llm):
        memory.normal_(generator=torch.Generator().manual_seed(0))
    return llm


def decode(*lengths, block_size=8, first=0):
    chunks, block = [], first
    for i, length in enumerate(lengths):
        needed = -(-(length + 1) // block_size)
        chunks.append(Chunk([3 + i], length, list(range(block, block + needed))))
        block += needed
    return Batch.of(chunks, block_size)


def test_every_size_is_recorded_once_the_largest_first():
    recorder = Recorder()
    graphs = graphs_of(tiny.llm(block_size=8, max_num_seqs=5), recorder)
    assert graphs.sizes == [1, 2, 4, 5] and [step.args for step in recorder.recorded] == [
        (5,),
        (4,),
        (2,),
        (1,),
    ]


def test_a_step_gets_the_next_size_and_the_same_logits():
    llm, recorder = filled(tiny.llm(block_size=8, max_num_seqs=8)), Recorder()
    graphs = graphs_of(llm, recorder)
    for lengths, size in (((40, 3, 9), 4), ((5,), 1), ((1, 2, 3, 4, 5, 6, 7), 8), ((3, 8), 2)):
        batch = decode(*lengths)
        model, cache = llm.engine.runner.model, llm.engine.runner.cache
        tensors = tiny.cache_tensors(llm)
        kept = [memory.clone() for memory in tensors]
        expected = model.logits(model(batch, cache))
        after = [memory.clone() for memory in tensors]
        for memory, was in zip(tensors, kept, strict=True):
            memory.copy_(was)
        found = graphs.run(batch)
        assert recorder.replayed[-1].args == (size,)
        torch.testing.assert_close(found, expected)
        others = torch.ones(tensors[0][..., 0, 0].numel(), dtype=torch.bool)
        others[batch.slot_mapping] = False
        for memory, written, was in zip(tensors, after, kept, strict=True):
            torch.testing.assert_close(memory, written)
            assert torch.equal(memory.flatten(0, 1)[others], was.flatten(0, 1)[others]), (
                "padding writes nothing"
            )


def test_rows_of_an_earlier_larger_step_are_padding_in_the_next():
    llm = filled(tiny.llm(block_size=8, max_num_seqs=8))
    graphs = graphs_of(llm, Recorder())
    graphs.run(decode(9, 9, 9, 9))
    graphs.run(decode(20, 30, 40))
    buffers = graphs._buffers
    assert buffers.slot_mapping[3:4].tolist() == [-1] and buffers.seq_lens[3:4].tolist() == [0]


@pytest.mark.parametrize(
    "batch",
    [
        Batch.of([Chunk([3, 4], 0, [0])], 8),
        Batch.of([Chunk([3], 0, [0]), Chunk([3, 4], 5, [1])], 8),
        decode(1, 1, 1, 1, 1),
        Batch.of([Chunk([3], 4, list(range(13)))], 8),
    ],
    ids=["a prompt", "a prompt beside a decode", "too many requests", "a table too wide"],
)
def test_what_does_not_fit_is_not_replayed(batch):
    recorder = Recorder()
    assert graphs_of(tiny.llm(block_size=8, max_num_seqs=4), recorder).run(batch) is None
    assert recorder.replayed == []
