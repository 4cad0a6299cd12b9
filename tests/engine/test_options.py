"""Every pair of engine options gives the tokens of `transformers`, or is refused by the name of one of them."""

from itertools import combinations

import pytest

from minillm import SamplingParams
from tests.engine import tiny
from tests.engine.test_equality import staggered
from tests.engine.tiny import PROMPTS

MAX_TOKENS = 12
VALUES = [
    ("max_num_seqs", 2),
    ("max_num_batched_tokens", 7),
    ("enable_chunked_prefill", False),
    ("long_prefill_token_threshold", 5),
    ("scheduling_policy", "priority"),
    ("scheduling_policy", "static"),
    ("num_gpu_blocks_override", 20),
    ("kv_cache", "contiguous"),
    ("kv_cache", "virtual"),
    ("kv_cache", "none"),
    ("block_size", 3),
    ("enable_prefix_caching", False),
    ("max_model_len", 60),
    ("enforce_eager", True),
    ("seed", 7),
    ("max_num_waiting", 9),
    ("trace", True),
]
PAIRS = [(a, b) for a, b in combinations(VALUES, 2) if a[0] != b[0]]
CHUNKS = ("long_prefill_token_threshold", 5)
REFUSED = [
    {("enable_chunked_prefill", False), CHUNKS},
    {("enable_chunked_prefill", False), ("max_num_batched_tokens", 7)},
    {("kv_cache", "none"), CHUNKS},
]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda option: f"{option[0]}={option[1]}")
def test_two_options_together_are_right_or_refused(one, other):
    if {one, other} in REFUSED:
        with pytest.raises(ValueError, match=f"(?s)(?=.*{one[0]}).*{other[0]}"):
            tiny.llm(**dict([one, other]))
        return
    params = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)
    found = staggered(tiny.llm(**dict([one, other])), lambda _: params)
    assert found == [[tiny.greedy(prompt, MAX_TOKENS)] for prompt in PROMPTS]


def test_kv_cache_memory_bytes_is_the_size_of_the_cache():
    for changes in ({}, {"kv_cache": "contiguous"}, {"kv_cache_dtype": "int8"}, {"block_size": 8}):
        llm = tiny.llm(kv_cache_memory_bytes=500_000, **changes)
        block = sum(t.nbytes for t in tiny.cache_tensors(llm)) / llm.engine.memory.num_blocks
        assert 500_000 - block < llm.engine.memory.num_blocks * block <= 500_000 + block
        assert llm.generate([5], SamplingParams(max_tokens=2))[0].finished
    with pytest.raises(ValueError, match=r"one request's cache of .* a larger kv_cache_memory_bytes"):
        tiny.llm(kv_cache_memory_bytes=1)
    with pytest.raises(ValueError, match="leave one of them out"):
        tiny.llm(kv_cache_memory_bytes=500_000, num_gpu_blocks_override=4)
    with pytest.raises(ValueError, match="leave one of them out"):
        tiny.llm(kv_cache_memory_bytes=500_000, kv_cache="none")
