"""The buffers of recorded decode steps, with a recorder that runs the step again where a GPU would replay it."""

from copy import copy
from dataclasses import replace

import pytest
import torch

from minillm import SamplingParams
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
    graphs = graphs_of(tiny.llm(block_size=8, max_num_seqs=100), lambda step: step, rows=5)
    assert graphs.sizes[-1] == LARGEST // 5
    assert graphs.run(decode(*[3] * 52, counts=[2] * 52)) is None


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
        start = max(start, end - lengths[r])  # padding rows before the first key see nothing
        if lengths[r]:
            chunk = Chunk([0] * (end - start), lengths[r] - (end - start), tables[r])
            out[start:end] = Ops().paged_attention(
                q[start:end], kv, Batch.of([chunk], batch.block_size), window
            )
    return out


def graphs_of(llm, recorder, rows=1, taps=None):
    runner = llm.engine.runner
    ops = replace(Ops(), write_kv=padding_writes_nothing, paged_attention=attention_by_tensors)
    cache = copy(runner.cache)  # over the same memory
    cache.ops = ops
    model = runner.model.with_ops(ops)
    return DecodeGraphs(model, cache, llm.config.max_num_seqs, llm.config.max_model_len, recorder, rows, taps)


def filled(llm):
    """A cache in which every slot holds something."""
    for memory in tiny.cache_tensors(llm):
        memory.normal_(generator=torch.Generator().manual_seed(0))
    return llm


def decode(*lengths, block_size=8, counts=None):
    """One token for each request, or `counts`, after so many tokens in the cache."""
    chunks, block = [], 0
    for i, (length, count) in enumerate(zip(lengths, counts or [1] * len(lengths), strict=True)):
        needed = -(-(length + count) // block_size)
        ids = [3 + i + j for j in range(count)]
        chunks.append(Chunk(ids, length, list(range(block, block + needed))))
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


@pytest.mark.parametrize(
    ("lengths", "counts", "size"),
    [
        ((40, 3, 9), None, 4),
        ((5,), None, 1),
        ((1, 2, 3, 4, 5, 6, 7), None, 8),
        ((3, 8), None, 2),
        ((40, 3, 9), (5, 5, 5), 4),
        ((40, 7, 9, 20), (5, 1, 3, 2), 4),  # fewer drafts than most
        ((6,), (2,), 1),
        ((0, 1, 60), (2, 1, 4), 4),  # padding rows with positions before the text
        ((9, 12), (3, 1), 2),
    ],
)
@pytest.mark.parametrize("taps", [None, (0, 1)])
def test_a_step_gets_the_next_size_and_the_same_logits(lengths, counts, size, taps):
    llm, recorder = filled(tiny.llm(block_size=8, max_num_seqs=8)), Recorder()
    rows = 5 if counts else 1
    graphs = graphs_of(llm, recorder, rows, taps)
    graphs.run(decode(70, 71, 72, 73, 74, 75, counts=[rows] * 6))  # leaves something in every buffer
    batch = decode(*lengths, counts=counts)
    model, cache = llm.engine.runner.model, llm.engine.runner.cache
    tensors = tiny.cache_tensors(llm)
    kept = [memory.clone() for memory in tensors]
    right = model.hidden_states(batch, cache, taps or ())
    after = [memory.clone() for memory in tensors]
    for memory, was in zip(tensors, kept, strict=True):
        memory.copy_(was)
    logits, hidden = graphs.run(batch), graphs.hidden
    assert recorder.replayed[-1].args == (size,)
    torch.testing.assert_close(logits, model.logits(right.last), rtol=1e-4, atol=1e-4)
    assert (hidden is None) == (taps is None)
    if hidden is not None:
        for found, expected in zip((hidden.last, *hidden.taps), (right.last, *right.taps), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    others = torch.ones(tensors[0][..., 0, 0].numel(), dtype=torch.bool)
    others[batch.slot_mapping] = False
    for memory, written, was in zip(tensors, after, kept, strict=True):
        torch.testing.assert_close(memory, written, rtol=1e-4, atol=1e-4)
        assert torch.equal(memory.flatten(0, 1)[others], was.flatten(0, 1)[others]), "padding writes nothing"


@pytest.mark.parametrize("method", ["ngram", "suffix", "draft_model"])
def test_speculation_replays_every_step_but_prompts(method):
    """The tokens are those of eager steps. Prompts, and a draft model that catches up, are too long for a recording."""
    own = {"method": method, "num_speculative_tokens": 3}
    own |= {"model": str(tiny.folder())} if method == "draft_model" else {}
    llm, one, several = tiny.llm(block_size=8, speculative_config=own), Recorder(), Recorder()
    prompts, params = [[7, 8, 9] * 3, [20] * 5], SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    wanted = tiny.tokens(tiny.llm().generate(prompts, params))
    runner, num_steps = llm.engine.runner, []
    runner.graphs, runner.verify_graphs = graphs_of(llm, one), graphs_of(llm, several, rows=4)
    run = runner.run
    runner.run = lambda step: num_steps.append(step) or run(step)
    assert tiny.tokens(llm.generate(prompts, params)) == wanted
    assert len(one.replayed) + len(several.replayed) == len(num_steps) - 1
    assert method == "ngram" or several.replayed


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
