"""Chapter 02's measured steps: the hollow model makes the same calls, and each step has the cost that is counted."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import KVCache
from minillm.course import step_times
from minillm.measure.costs import decode_cost, prefill_cost
from minillm.model.transformer import Transformer
from minillm.ops import Ops
from tests.engine import tiny


def calls_of(model: Transformer) -> list[str]:
    """Return the names of the operations that the model calls in a step, in their order."""
    calls: list[str] = []

    def recording(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return getattr(model.ops, name)(*arguments)

        return call

    recorded = model.with_ops(replace(model.ops, **{name: recording(name) for name in Ops.names()}))
    cache = KVCache(model.config, 2, 4, model.dtype, model.device)
    batch = Batch.of([Chunk([1, 1], 0, [0]), Chunk([1], 2, [1])], cache.block_size, model.device)
    recorded.logits(recorded(batch, cache))
    return calls


def test_a_hollow_model_makes_the_same_calls_on_few_numbers() -> None:
    model = tiny.llm().model
    empty = step_times.hollow(model)
    assert calls_of(empty) == calls_of(model)
    assert empty.config.hidden_size == 8 and empty.config.num_hidden_layers == model.config.num_hidden_layers


def test_a_hollow_model_norms_queries_and_keys_where_the_model_does() -> None:
    model = tiny.llm().model
    normed = Transformer(replace(model.config, qk_norm=True), model.weights)
    num_layers = model.config.num_hidden_layers
    assert calls_of(step_times.hollow(normed)).count("rms_norm") == 1 + 2 * num_layers


def test_a_timing_has_the_cost_of_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def seconds_of(model: Transformer, *step: int) -> float:
        steps.append((model.config.hidden_size, *step))
        return float(len(steps))

    monkeypatch.setattr(step_times, "seconds_of", seconds_of)
    model = tiny.llm().model
    wide, width = model.config.hidden_size, model.dtype.itemsize
    decode, prefill = step_times.decode_timing(model, 3, 7), step_times.prefill_timing(model, 5)
    assert (decode.size, decode.seconds, decode.overhead) == (3, 1.0, 2.0)
    assert (prefill.size, prefill.seconds, prefill.overhead) == (5, 3.0, 4.0)
    assert steps == [(wide, 1, 7, 3), (8, 1, 7, 3), (wide, 5, 0, 1), (8, 5, 0, 1)]
    assert decode.cost == decode_cost(model.config, 7, 3, bytes_per_weight=width, bytes_per_kv=width)
    assert prefill.cost == prefill_cost(model.config, 5, bytes_per_weight=width, bytes_per_kv=width)


def test_a_step_is_timed() -> None:
    assert 0 < step_times.seconds_of(tiny.llm().model, new=2, context=3, batch=2) < 1
