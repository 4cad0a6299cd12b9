"""Count the cost of one step of a transformer, in floating-point operations and bytes, from a `ModelConfig`.

A step runs some new tokens of some requests through the model once. Prefill is one request with many new tokens, and
decode is many requests with one new token each. An engine's step can be any mixture of them (`step_cost`).

FLOPs are those of the matrix products, 2*M*N*K each, as in Kaplan et al. 2020 (arXiv 2001.08361, table 1) and
PyTorch's FlopCounterMode; norms, softmax and activations are a small rest. Bytes are those that must cross
the memory bus at least once: weights, and the keys and values of the cache. Activations are left out: a fused
kernel keeps most of them on the chip, so what they move is a property of the kernels, not of the model.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from minillm.config import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One step: operations (FLOP) of linear layers and of attention; bytes of weights and of the KV cache."""

    linear_flops: int
    attention_flops: int
    weight_bytes: float
    kv_read_bytes: float
    kv_write_bytes: float

    @property
    def flops(self) -> int:
        """Return all matmul operations, in FLOP."""
        return self.linear_flops + self.attention_flops

    @property
    def bytes(self) -> float:
        """Return all bytes that cross the memory bus."""
        return self.weight_bytes + self.kv_read_bytes + self.kv_write_bytes

    @property
    def intensity(self) -> float:
        """Return the arithmetic intensity, in FLOP per byte: the x axis of a roofline."""
        return self.flops / self.bytes


def step_cost(
    config: ModelConfig,
    query_lens: Sequence[int],
    context_lens: Sequence[int],
    *,
    num_logits: int | None = None,
    bytes_per_weight: float = 2,
    bytes_per_kv: float = 2,
) -> Cost:
    """Return the cost of one step: request r computes `query_lens[r]` new tokens after `context_lens[r]` cached ones.

    Attention counts the pairs that a query may see (causal, within the layer's sliding window). The cache is written
    for every new token, and each visible entry, new ones included, is read once. The embedding table is read only at
    the rows of the new tokens. The head is read whole if there is anything to predict. `num_logits` is the number of
    positions at which the head runs: by default one per request, from which the next token is sampled.

    `bytes_per_weight` and `bytes_per_kv` may be fractions (int4 with its scales).
    Raises ValueError for unequal lengths, no requests, an empty query or a negative context.
    """
    if len(query_lens) != len(context_lens) or not query_lens:
        raise ValueError(
            f"{len(query_lens)} query_lens and {len(context_lens)} context_lens: give one of each per request"
        )
    if min(query_lens) < 1 or min(context_lens) < 0:
        raise ValueError(
            f"query_lens {list(query_lens)} must be >= 1 and context_lens {list(context_lens)} >= 0"
        )
    num_tokens = sum(query_lens)
    num_logits = len(query_lens) if num_logits is None else num_logits
    if not 0 <= num_logits <= num_tokens:
        raise ValueError(f"num_logits={num_logits} must be between 0 and the {num_tokens} tokens of the step")

    head = config.vocab_size * config.hidden_size
    weights_read = (
        _layer_parameters(config) + (head if num_logits else 0) + _embedding_row(config) * num_tokens
    )
    pairs, entries_read = _attention_pairs(config, query_lens, context_lens)
    entries_written = num_tokens * config.num_hidden_layers
    bytes_per_entry = 2 * config.kv_size * bytes_per_kv  # a key and a value, in one layer
    return Cost(
        linear_flops=2 * (num_tokens * _matmul_parameters(config) + num_logits * head),
        attention_flops=4 * config.q_size * pairs,  # QK^T and PV, 2 * head_dim a pair and head each
        weight_bytes=weights_read * bytes_per_weight,
        kv_read_bytes=entries_read * bytes_per_entry,
        kv_write_bytes=entries_written * bytes_per_entry,
    )


def prefill_cost(
    config: ModelConfig,
    num_tokens: int,
    context: int = 0,
    batch: int = 1,
    *,
    bytes_per_weight: float = 2,
    bytes_per_kv: float = 2,
) -> Cost:
    """Return the cost of `batch` prompts of `num_tokens` each, after `context` tokens that are already cached."""
    return step_cost(
        config,
        [num_tokens] * batch,
        [context] * batch,
        bytes_per_weight=bytes_per_weight,
        bytes_per_kv=bytes_per_kv,
    )


def decode_cost(
    config: ModelConfig, context: int, batch: int = 1, *, bytes_per_weight: float = 2, bytes_per_kv: float = 2
) -> Cost:
    """Return the cost of one new token for each of `batch` requests that have `context` tokens in the cache."""
    return step_cost(
        config, [1] * batch, [context] * batch, bytes_per_weight=bytes_per_weight, bytes_per_kv=bytes_per_kv
    )


def _matmul_parameters(config: ModelConfig) -> int:
    """Return the number of parameters that multiply every token: all layers' projections and MLPs, not the head."""
    h = config.hidden_size
    attention = h * (config.q_size + 2 * config.kv_size) + config.q_size * h
    mlp = (3 if config.gated_mlp else 2) * h * config.intermediate_size
    return config.num_hidden_layers * (attention + mlp)


def _layer_parameters(config: ModelConfig) -> int:
    """Return the number of parameters that every step reads whole: all but the embedding tables and the head."""
    table = config.vocab_size * config.hidden_size
    tables = table if config.tie_word_embeddings else 2 * table
    positions = 0 if config.rope is not None else config.max_position_embeddings * config.hidden_size
    return config.num_parameters - tables - positions


def _embedding_row(config: ModelConfig) -> int:
    """Return the count of numbers looked up for one token: its embedding, plus its position's if that is learned."""
    return config.hidden_size * (1 if config.rope is not None else 2)


def _attention_pairs(
    config: ModelConfig, query_lens: Sequence[int], context_lens: Sequence[int]
) -> tuple[int, int]:
    """Return, over all layers, the (query, key) pairs that attention computes, and the cache entries that it reads."""
    pairs = entries = 0
    for window, num_layers in Counter(map(config.sliding_window, range(config.num_hidden_layers))).items():
        for n, context in zip(query_lens, context_lens, strict=True):
            pairs += num_layers * visible_pairs(n, context, window)
            # The first of n queries reaches furthest back: window - 1 tokens before itself.
            entries += num_layers * (context + n if window is None else min(context + n, window - 1 + n))
    return pairs, entries


def visible_pairs(num_queries: int, context: int, window: int | None = None) -> int:
    """Return the sum over queries i of the keys that each may see, min(window, context + i + 1), in closed form."""
    # The first `growing` queries see everything before them; the window cuts off the rest.
    growing = num_queries if window is None else max(0, min(num_queries, window - context))
    cut = (num_queries - growing) * (window or 0)
    return growing * context + growing * (growing + 1) // 2 + cut
