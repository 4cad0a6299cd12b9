"""Chapter 02, the memory wall: its exercises' checks. Everything is counted from numbers; no model is run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minillm.config import ModelConfig, RopeConfig
from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch02 import COUNT_STEP, PREDICT_DECODE
from minillm.measure.costs import Cost, decode_cost
from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.known_models import KNOWN_MODELS
from minillm.measure.machine import Machine
from minillm.measure.roofline import time_at

TOLERANCE = 0.002  # norms and embedding rows may be counted or not
LLAMA_8B, LLAMA_70B = KNOWN_MODELS["llama_3_8b"], KNOWN_MODELS["llama_3_70b"]
QWEN = KNOWN_MODELS["qwen3_0_6b"]  # 16 heads of 128 on a width of 1,024; the head is the embedding table

# Attention is most of the work of a step, so one pair more or less shows in the count.
TINY = ModelConfig(
    family="llama",
    vocab_size=1018,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=16,
    num_key_value_heads=4,
    head_dim=64,
    max_position_embeddings=256,
    rope=RopeConfig(),
)


@dataclass(frozen=True)
class Counted:
    """The parts of a step, each from its own formula. A mistake is one part counted in another way."""

    matrices: int  # numbers of the layers' matrices
    head: int
    table: int  # numbers of an embedding table that is not the head
    tokens: int
    requests: int
    dots: int  # 2 * head_dim FLOP per pair of a query and a key, over all heads and layers
    square: int  # the same without a causal mask: every query with every key
    strict: int  # the same if no token saw itself
    half: float  # the same with half a square for the new tokens
    own: int  # the same as if each request's new tokens saw one another only
    entry: int  # bytes of a token's key and value in all layers, 2 bytes a number
    seen: int  # cache entries read
    wide: float  # query heads for each KV head
    narrow: int  # the matrices if the query heads were as wide as the hidden state
    narrow_dots: int
    full: int  # the matrices if every query head had a KV head of its own
    ungated: int  # the matrices if the MLP had two

    @property
    def flops(self) -> int:
        return self.linear + 2 * self.dots

    @property
    def linear(self) -> int:
        return 2 * (self.matrices * self.tokens + self.head * self.requests)

    @property
    def bytes(self) -> int:
        return self.weights + self.entry * (self.seen + self.tokens)

    @property
    def weights(self) -> int:
        return 2 * (self.matrices + self.head)


def count(config: ModelConfig, query_lens: Sequence[int], context_lens: Sequence[int]) -> Counted:
    h, q, kv = config.hidden_size, config.q_size, config.kv_size
    both = list(zip(query_lens, context_lens, strict=True))
    layers, mlp = config.num_hidden_layers, h * config.intermediate_size
    pairs = sum(n * c + n * (n + 1) // 2 for n, c in both)
    per_pair = 2 * q * layers
    head = config.vocab_size * h
    return Counted(
        matrices=layers * (2 * h * q + 2 * h * kv + 3 * mlp),
        head=head,
        table=0 if config.tie_word_embeddings else head,
        tokens=sum(query_lens),
        requests=len(query_lens),
        dots=per_pair * pairs,
        square=per_pair * sum(n * (c + n) for n, c in both),
        strict=per_pair * sum(n * c + n * (n - 1) // 2 for n, c in both),
        half=per_pair * sum(n * c + n * n / 2 for n, c in both),
        own=per_pair * sum(n * (n + 1) // 2 for n, _ in both),
        entry=2 * layers * kv * 2,
        seen=sum(c + n for n, c in both),
        wide=q / kv,
        narrow=layers * (2 * h * h + 2 * h * kv + 3 * mlp),
        narrow_dots=2 * h * layers * pairs,
        full=layers * (2 * h * q + 2 * h * q + 3 * mlp),
        ungated=layers * (2 * h * q + 2 * h * kv + 2 * mlp),
    )


HEADS = (
    "the width of all query heads is num_attention_heads * head_dim, which need not be hidden_size. Use "
    "q_size"
)
GROUPS = (
    "k and v are projected to num_key_value_heads heads, and the model has fewer of them than query heads. "
    "Use kv_size"
)
GATED = "a gated MLP has three matrices: gate, up and down. You count two"


def wrong_flops(c: Counted) -> dict[str, float]:
    """Return the FLOP that each usual mistake gives, by its message."""
    head = 2 * c.head * c.requests
    return {
        HEADS: 2 * c.narrow * c.tokens + head + 2 * c.narrow_dots,
        GROUPS: 2 * c.full * c.tokens + head + 2 * c.dots,
        GATED: 2 * c.ungated * c.tokens + head + 2 * c.dots,
        "a multiply-add is two operations: a multiplication and an addition. You count one": c.flops / 2,
        "the attention is missing. Count q·k and weights·v for each query and each key that it sees": c.linear,
        "attention is two products: q·k and weights·v. You count one of them": c.linear + c.dots,
        "a token sees itself too. n new tokens make n(n+1)/2 pairs among themselves, not n(n-1)/2": c.linear
        + 2 * c.strict,
        "n new tokens make n(n+1)/2 pairs among themselves, not half a square": c.linear + 2 * c.half,
        "attention is as wide as all query heads, num_attention_heads * head_dim. You use hidden_size": c.linear
        + 2 * c.narrow_dots,
        "the context that is already in the cache is missing. The new tokens attend to it too": c.linear
        + 2 * c.own,
        "query i sees context + i + 1 keys. You let every new token see all keys, which counts later tokens "
        "too": c.linear + 2 * c.square,
        "the head is missing. The last token of each request is multiplied by [vocab, hidden] to get its "
        "logits": c.flops - 2 * c.head * c.requests,
        "the head runs at the last token of each request only. You run it at every token of the prompt": c.flops
        + 2 * c.head * (c.tokens - c.requests),
        "the embedding table is looked up, one row per token. You multiply by it": c.flops
        + 2 * c.table * c.tokens,
        "all tokens of a prompt run through the matrices. You count one token per request": 2
        * (c.matrices + c.head)
        * c.requests
        + 2 * c.dots,
    }


def wrong_bytes(c: Counted) -> dict[str, float]:
    """Return the bytes that each usual mistake gives, by its message."""
    cache = c.entry * (c.seen + c.tokens)
    return {
        HEADS: 2 * (c.narrow + c.head) + cache,
        GROUPS: 2 * (c.full + c.head) + cache,
        GATED: 2 * (c.ungated + c.head) + cache,
        "the weights are read once per step. You read them once for each request": c.weights * c.requests
        + cache,
        "the weights are read once per step. You read them once for each token": c.weights * c.tokens + cache,
        "the KV cache is missing. A step reads the keys and values of the whole context": c.weights,
        "the cache keeps a key and a value for each token. You count one of them": c.weights + cache / 2,
        "the cache keeps the KV heads, not the query heads. Use num_key_value_heads": c.weights
        + cache * c.wide,
        "the keys and values of the new tokens are written and then read. Count both": c.bytes
        - c.entry * c.tokens,
        "the cache is read too. You count only the bytes that are written": c.weights + c.entry * c.tokens,
        "the weights are missing. A step reads all of them once": cache,
        "only the new tokens' rows of the embedding table are read. You read the whole table": c.bytes
        + 2 * c.table,
        "the head is missing. Its [vocab, hidden] weights are read in every step": c.bytes - 2 * c.head,
        "a number has 2 bytes here. You count 1 byte": c.bytes / 2,
        "a number has 2 bytes here. You count 4 bytes": c.bytes * 2,
    }


def near(value: float, right: float, tolerance: float = TOLERANCE) -> bool:
    return abs(value - right) <= tolerance * abs(right)


def figure(value: Any, right: float, name: str, mistakes: Mapping[str, float], note: str = "") -> None:
    """Raise Wrong unless `value` is near `right`, and name the nearest mistake that shows in this step."""
    value = expect.number(value, name)
    if near(value, right):
        return
    visible = [
        (abs(value - x), message) for message, x in mistakes.items() if not near(x, right, 2 * TOLERANCE)
    ]
    distance, message = min(visible, default=(math.inf, ""))
    if distance <= TOLERANCE * abs(value):
        raise Wrong(message)
    raise Wrong(
        f"{name} is {value:.4g}; it should be {right:.4g}{note}. Yours is {value / right:.3g} times as much"
    )


def pair_of(value: Any, names: str) -> tuple[Any, Any]:
    expect.something(value)
    expect.that(
        isinstance(value, tuple | list) and len(value) == 2,
        f"the result is a {type(value).__name__}; it should be the two numbers ({names})",
    )
    return value[0], value[1]


def counted(
    learner: Answer, config: ModelConfig, query_lens: list[int], context_lens: list[int], *, which: str
) -> None:
    right = count(config, query_lens, context_lens)
    flops, moved = pair_of(learner(config, query_lens, context_lens), "FLOP, bytes")
    if which == "flops":
        note = f" (linear layers {right.linear:.4g}, attention {2 * right.dots:.4g})"
        figure(flops, right.flops, "the FLOP count", wrong_flops(right), note)
    else:
        note = f" (weights {right.weights:.4g}, cache {right.bytes - right.weights:.4g})"
        figure(moved, right.bytes, "the byte count", wrong_bytes(right), note)


@COUNT_STEP.part("FLOP of a decode step", points=1)
def decode_flops(learner: Answer) -> None:
    for config in (LLAMA_8B, TINY, QWEN):
        counted(learner, config, [1] * 8, [4000] * 8, which="flops")


@COUNT_STEP.part("bytes of a decode step", points=1)
def decode_bytes(learner: Answer) -> None:
    for config in (LLAMA_70B, QWEN):
        counted(learner, config, [1] * 8, [4000] * 8, which="bytes")


@COUNT_STEP.part("FLOP of a mixed step: a chunk of a prompt, a prompt, decodes", points=2)
def mixed_flops(learner: Answer) -> None:
    counted(learner, LLAMA_8B, [2000], [0], which="flops")
    counted(learner, LLAMA_8B, [512, 1500, 1, 1], [6000, 0, 900, 30], which="flops")
    counted(learner, TINY, [12], [0], which="flops")
    counted(learner, TINY, [2, 7, 1], [0, 5, 3], which="flops")


@COUNT_STEP.part("bytes of a mixed step", points=1)
def mixed_bytes(learner: Answer) -> None:
    counted(learner, LLAMA_8B, [512, 1500, 1, 1], [6000, 0, 900, 30], which="bytes")


NAMES = "tokens per second, batch"
A100 = KNOWN_GPUS["A100"]
# Its copy bandwidth and its rates differ from each other, so that using the wrong one shows.
ODD = replace(
    A100,
    name="an odd machine",
    copy_bandwidth=1.4e12,
    matmul_rate={"float32": 20e12, "bfloat16": 100e12, "float16": 160e12, "int8": 640e12},
)


def mistaken_rates(cost: Cost, machine: Machine, config: ModelConfig, batch: int) -> dict[str, float]:
    """Return the tokens per second that each usual mistake gives, by its message."""
    compute, memory = cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth
    seconds = max(compute, memory)
    return {
        "that is the speed of one request. A step gives every request of the batch a token, so multiply by "
        "`batch`": 1 / seconds,
        "that is the time of a step in seconds. Return the tokens per second": seconds,
        "that is the time per token in seconds. Return the tokens per second": seconds / batch,
        "arithmetic and memory work at the same time, so the step takes the longer of the two times, not "
        "their sum": batch / (compute + memory),
        "you count only the time of the arithmetic. Compare it with the time to read the bytes": batch
        / compute,
        "you count only the time to read the bytes. Compare it with the time of the arithmetic": batch
        / memory,
        "the KV cache is missing. A step reads it as well as the weights": batch
        / (cost.weight_bytes / machine.read_bandwidth),
        "a number in bfloat16 has 2 bytes. You count 4": batch / (2 * memory),
        "copy_bandwidth counts reading and writing together. A step mostly reads, so use read_bandwidth": batch
        / (cost.bytes / machine.copy_bandwidth),
        "the weights are bfloat16. Use the rate for bfloat16, not the one for float32": batch
        / max(cost.flops / machine.rate("float32"), memory),
    }


def speed(learner: Answer, config: ModelConfig, machine: Machine, context: int, batch: int) -> None:
    rate, _ = pair_of(learner(config, machine, context, batch), NAMES)
    cost = decode_cost(config, context, batch)
    figure(
        rate,
        batch / max(cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth),
        "tokens per second",
        mistaken_rates(cost, machine, config, batch),
    )


BY_MEMORY, BY_ARITHMETIC = (LLAMA_8B, ODD, 4096, 1), (LLAMA_70B, ODD, 64, 512)


@PREDICT_DECODE.part("one request", points=1)
def one_request(learner: Answer) -> None:
    rates = [pair_of(learner(*asked), NAMES)[0] for asked in (BY_MEMORY, BY_ARITHMETIC)]
    if all(isinstance(rate, int | float) for rate in rates):
        times = [
            time_at(decode_cost(config, c, b), m, "bfloat16")
            for config, m, c, b in (BY_MEMORY, BY_ARITHMETIC)
        ]
        faster = [1 / times[0].compute_s, 512 / times[1].memory_s]
        if all(near(rate, fast) for rate, fast in zip(rates, faster, strict=True)):
            raise Wrong(
                "a step takes the longer of the two times, memory or arithmetic. You take the shorter one"
            )
    speed(learner, *BY_MEMORY)


@PREDICT_DECODE.part("a batch, bound by memory or by arithmetic", points=2)
def batches(learner: Answer) -> None:
    speed(learner, LLAMA_8B, ODD, 2048, 16)
    speed(learner, *BY_ARITHMETIC)
    speed(learner, LLAMA_8B, A100, 128, 1)


@PREDICT_DECODE.part("the batch whose KV cache is as large as the weights", points=1)
def break_even(learner: Answer) -> None:
    asked = (
        (LLAMA_70B, 4096, 1),
        (LLAMA_8B, 1000, 1),
        (QWEN, 3000, 1),
        (LLAMA_8B, 1000, 7),
        (LLAMA_8B, 103, 2),
    )
    for config, context, size in asked:
        batch = pair_of(learner(config, A100, context, size), NAMES)[1]
        cost = decode_cost(config, context)
        exact = cost.weight_bytes / cost.kv_read_bytes
        right = math.ceil(exact)
        name = f"the smallest batch whose KV cache of {context} tokens per request is as large as the weights"
        batch = expect.number(batch, name)
        if isinstance(batch, float) and not batch.is_integer():
            raise Wrong(f"{name} is {batch:.4g}. A batch has a whole number of requests: round up")
        mistakes = {
            f"{batch} requests of {context} tokens still have a smaller cache than the weights. Round the "
            "quotient up": right - 1,
            f"{batch} is the answer divided by `batch`. The answer must not depend on `batch`": (
                math.ceil(exact / size) if size > 1 else math.nan
            ),
            f"{batch} is a number of tokens. Each request has {context} tokens in its cache, so divide by that": exact
            * context,
            f"{batch} is twice too many. A cache keeps a key and a value for each token": 2 * exact,
            f"{batch} would be right if every query head had its own KV head. Use the number of KV heads": exact
            * config.kv_size
            / config.q_size,
        }
        if isinstance(batch, int) and batch != right:
            for message, mistaken in mistakes.items():
                if abs(batch - mistaken) <= max(0.02 * mistaken, 0.5 * (mistaken != right - 1)):
                    raise Wrong(message)
        expect.equal(int(batch) if isinstance(batch, float) else batch, right, name)
