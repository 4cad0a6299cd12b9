"""The engine on its Triton kernels writes what `transformers` writes: eagerly, and through the buffers of graphs."""

import pytest

from tests.engine import tiny
from tests.kernels import cases_engine

EXPECTED = [[tiny.greedy(tuple(prompt), cases_engine.MAX_TOKENS)] for prompt in cases_engine.PROMPTS]
WAYS = {
    "paged": {},
    "few blocks": {"num_gpu_blocks_override": 6},
    "chunks of 5": {"max_num_batched_tokens": 5},
    "contiguous": {"kv_cache": "contiguous"},
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS.keys())
def test_greedy_tokens_are_those_of_transformers(interpreted, changes):
    found, _ = interpreted(cases_engine.tokens, graphs=False, **changes)
    assert found == EXPECTED


@pytest.mark.slow
@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS.keys())
def test_recorded_steps_write_the_same(interpreted, changes):
    found, replayed = interpreted(cases_engine.tokens, graphs=True, **changes)
    assert found == EXPECTED and replayed >= cases_engine.MAX_TOKENS - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [("interpret", RuntimeError, "needs TRITON_INTERPRET=1"), ("yes", ValueError, "MINILLM_KERNELS='yes'")],
)
def test_what_cannot_be_asked_for_is_said(interpreted, wanted, error, message):
    with pytest.raises(error, match=message):
        interpreted(cases_engine.without_the_interpreter, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["int4", "int8", "w8a8"])
def test_packed_weights_write_what_the_definition_of_their_product_writes(interpreted, quantization):
    found, expected, calls = interpreted(cases_engine.quantised, quantization)
    assert found == expected
    assert calls >= 3 * 2 * 4, "three steps of two layers with four products each"
