"""The whole engine on its kernels: for Triton's interpreter, or for a GPU."""

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import minillm
from minillm import LLM, SamplingParams, ops
from minillm.engine.graphs import DecodeGraphs
from minillm.ops import Ops
from tests.engine import tiny

PROMPTS = [list(tiny.PROMPTS[i]) for i in (0, 1, 2, 4)]
MAX_TOKENS = 8


def again(step: Callable[[], None]) -> Callable[[], None]:
    """Run a step once more on the same buffers, as a CUDA graph does."""
    step()
    return step


def on_kernels(graphs: bool, **changes: object) -> LLM:
    """A tiny model in the interpreter; decode steps through the buffers of the graphs, or eagerly."""
    with patch.dict(os.environ, MINILLM_KERNELS="interpret"):
        llm = LLM(tiny.folder(), **{"max_num_seqs": 3, "block_size": 8} | changes)
    assert llm.model.ops.paged_attention is not Ops().paged_attention
    assert llm.model.ops.recordable, "kernels skip padding"
    if graphs:
        runner, config = llm.engine.runner, llm.config
        runner.graphs = DecodeGraphs(
            runner.model, runner.cache, config.max_num_seqs, config.max_model_len, again
        )
    return llm


def tokens(graphs: bool, **changes: object) -> tuple[list[list[list[int]]], int]:
    """Greedy tokens of the prompts, and how many steps were replayed."""
    llm = on_kernels(graphs, **changes)
    replayed = []
    if graphs:
        run = llm.engine.runner.graphs.run

        def counted(batch):
            logits = run(batch)
            replayed.extend([] if logits is None else [1])
            return logits

        llm.engine.runner.graphs.run = counted
    params = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)
    return tiny.tokens(llm.generate(PROMPTS, params)), len(replayed)


def without_the_interpreter(wanted: str) -> None:
    with patch.dict(os.environ, MINILLM_KERNELS=wanted, TRITON_INTERPRET="0"):
        LLM(tiny.folder(), max_num_seqs=1)


def quantised(quantization: str) -> tuple[list[list[list[int]]], list[list[list[int]]], int]:
    """Greedy tokens with packed weights, the same with the definition of the product, and the launches of a kernel."""
    name = f"{quantization}_matmul"
    definition, calls = getattr(ops, name), []

    def tokens_with(product: Callable[..., Tensor]) -> list[list[list[int]]]:
        with minillm.swap(**{name: product}):
            llm = on_kernels(graphs=True, quantization=quantization)
        return tiny.tokens(llm.generate(PROMPTS[:2], SamplingParams(temperature=0, max_tokens=3)))

    def counted(*call: Any) -> Tensor:
        calls.append(call)
        return kernel(*call)

    with patch.dict(os.environ, MINILLM_KERNELS="interpret"):
        kernel = getattr(ops.ops_for(torch.device("cpu")), name)
    assert kernel is not definition
    return tokens_with(counted), tokens_with(definition), len(calls)
