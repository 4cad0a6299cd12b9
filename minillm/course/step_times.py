"""Measured steps: how long a model takes for one, and how much of that is overhead."""

from dataclasses import replace

import torch
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import KVCache
from minillm.measure.costs import step_cost
from minillm.measure.timing import median_of
from minillm.model.embedding import Embedding
from minillm.model.linear import Linear
from minillm.model.mlp import ACTIVATIONS, DenseMlp
from minillm.model.transformer import Block, Norm, Transformer, Weights
from minillm.viz.memory_wall import Timing

WIDE, HEAD_DIM = 8, 2  # numbers in each hidden state of a hollow model, and in each of its heads


def hollow(model: Transformer) -> Transformer:
    """Return a model that makes the same calls as `model`, but has next to nothing to compute.

    It has as many layers and heads. Each hidden state has 8 numbers and each head 2, so its time is overhead: Python,
    torch's dispatch, small copies, and on a GPU the launches of kernels.
    """
    config = replace(
        model.config, hidden_size=WIDE, intermediate_size=WIDE, vocab_size=WIDE, head_dim=HEAD_DIM
    )

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=model.dtype, device=model.device)

    norm = Norm(zeros(WIDE), zeros(WIDE))
    head_norm = Norm(zeros(HEAD_DIM)) if config.qk_norm else None
    qkv = Linear(zeros(WIDE, config.q_size + 2 * config.kv_size))
    gate_up = Linear(zeros(WIDE, WIDE * (1 + config.gated_mlp)))
    activation = None if config.gated_mlp else ACTIVATIONS[config.activation]
    mlp = DenseMlp(gate_up, Linear(zeros(WIDE, WIDE)), activation)
    block = Block(norm, qkv, Linear(zeros(config.q_size, WIDE)), norm, mlp, head_norm, head_norm)
    blocks = [block] * config.num_hidden_layers
    weights = Weights(Embedding(zeros(WIDE, WIDE)), blocks, norm, Linear(zeros(WIDE, WIDE)))
    return Transformer(config, weights, model.ops)


def seconds_of(model: Transformer, new: int, context: int, batch: int, every_row: bool = False) -> float:
    """Return the median time of a step: `batch` requests compute `new` tokens each, after `context` cached ones.

    The step ends with the logits after each request's last token, or after every token.
    """
    cache = KVCache(model.config, batch, context + new, model.dtype, model.device)
    for layer in cache.layers:
        layer.k.zero_()
        layer.v.zero_()
    chunks = [Chunk([1] * new, context, [row]) for row in range(batch)]

    def step() -> None:
        hidden = model(Batch.of(chunks, cache.block_size, model.device), cache)
        model.logits(hidden if every_row else hidden[new - 1 :: new])

    with torch.inference_mode():
        return median_of(step, rounds=9, warmup=2, device=model.device).median


def decode_timing(model: Transformer, batch: int, context: int) -> Timing:
    """Return the measured time of one decode step of `batch` requests, after `context` cached tokens each."""
    return _timing(model, batch, 1, context, batch)


def prefill_timing(model: Transformer, num_tokens: int) -> Timing:
    """Return the measured time of the prefill of one prompt of `num_tokens` tokens."""
    return _timing(model, num_tokens, num_tokens, 0, 1)


def _timing(model: Transformer, size: int, new: int, context: int, batch: int) -> Timing:
    width = model.dtype.itemsize
    cost = step_cost(
        model.config, [new] * batch, [context] * batch, bytes_per_weight=width, bytes_per_kv=width
    )
    seconds, overhead = (seconds_of(each, new, context, batch) for each in (model, hollow(model)))
    return Timing(size, cost, seconds, overhead)
