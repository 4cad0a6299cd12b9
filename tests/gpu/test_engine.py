"""The engine on its kernels and graphs against the same engine on PyTorch's operations, both on one GPU."""

import pytest
import torch

import minillm
from minillm import LLM, SamplingParams, ops
from minillm.engine.graphs import DecodeGraphs

pytestmark = pytest.mark.gpu
PROMPTS = ["Once upon a time", "The fox", "One cold morning, a baker called", "It was raining"] * 3
GREEDY = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True)


def tokens(llm: LLM) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, GREEDY)]


@pytest.fixture(scope="module")
def on_torch() -> list[list[int]]:
    torch.backends.cuda.matmul.allow_tf32 = False
    plain = {name: getattr(ops, name) for name in ops.Ops.names()}
    with minillm.swap(**plain), LLM("tinytales", device="cuda", dtype="float32") as llm:
        assert llm.engine.runner.graphs is None
        return tokens(llm)


@pytest.mark.parametrize("enforce_eager", [True, False])
@pytest.mark.parametrize("kv_cache", ["paged", "contiguous"])
def test_kernels_and_graphs_write_the_same_float32_tokens(on_torch, kv_cache, enforce_eager) -> None:
    arguments = {"kv_cache": kv_cache, "enforce_eager": enforce_eager, "max_num_seqs": 5}
    with LLM("tinytales", device="cuda", dtype="float32", **arguments) as llm:
        assert llm.engine.runner.model.ops.paged_attention is not ops.paged_attention
        assert isinstance(llm.engine.runner.graphs, DecodeGraphs) != enforce_eager
        assert tokens(llm) == on_torch


def test_few_blocks_chunks_and_forks_write_the_same(on_torch) -> None:
    arguments = {"num_gpu_blocks_override": 14, "max_num_batched_tokens": 7, "max_num_seqs": 4}
    with LLM("tinytales", device="cuda", dtype="float32", **arguments) as llm:
        assert tokens(llm) == on_torch
    params = SamplingParams(n=4, temperature=0.9, seed=3, max_tokens=24, ignore_eos=True)
    with LLM("tinytales", device="cuda", dtype="float32") as llm:
        [together] = llm.generate(PROMPTS[0], params)
        alone = [
            llm.generate(
                PROMPTS[0], SamplingParams(temperature=0.9, seed=3 + i, max_tokens=24, ignore_eos=True)
            )[0]
            for i in range(4)
        ]
    assert [s.token_ids for s in together.outputs] == [a.outputs[0].token_ids for a in alone]


def test_a_graph_allocates_nothing_per_token() -> None:
    with LLM("tinytales", device="cuda", max_num_seqs=4) as llm:
        llm.generate(PROMPTS[:4], GREEDY)
        before = torch.cuda.memory_stats()["allocation.all.allocated"]
        llm.generate(PROMPTS[:4], GREEDY)
        few = torch.cuda.memory_stats()["allocation.all.allocated"] - before
    with LLM("tinytales", device="cuda", max_num_seqs=4, enforce_eager=True) as llm:
        llm.generate(PROMPTS[:4], GREEDY)
        before = torch.cuda.memory_stats()["allocation.all.allocated"]
        llm.generate(PROMPTS[:4], GREEDY)
        many = torch.cuda.memory_stats()["allocation.all.allocated"] - before
    assert few < many / 3
