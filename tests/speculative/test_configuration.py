"""`speculative_config`: each method runs, and each wrong value is named with its remedy."""

import pytest

from minillm import LLM, SamplingParams
from minillm.config import EngineConfig, SpeculativeConfig
from minillm.errors import CheckpointError
from minillm.speculative.load import check_length
from tests.engine import tiny

DRAFT = {"method": "draft_model", "model": "tinytales-draft"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"method": "medusa"}, "method='medusa' is not supported: use 'ngram' or 'suffix' or"),
        ({}, "needs a method: 'ngram' or"),
        ({"method": "ngram", "num_spec": 3}, "has no key 'num_spec': it takes method, model"),
        ({"method": "ngram", "num_speculative_tokens": 0}, "num_speculative_tokens=0: give an integer of at least 1"),
        ({"method": "ngram", "num_speculative_tokens": -2}, "num_speculative_tokens=-2"),
        ({"method": "ngram", "num_speculative_tokens": True}, "num_speculative_tokens=True"),
        ({"method": "ngram", "num_speculative_tokens": 64}, "does not fit into max_model_len=64: give at most 63"),
        ({"method": "ngram", "adaptive": 1}, "adaptive=1: give True or False"),
        ({"method": "ngram", "prompt_lookup_min": 5}, "prompt_lookup_min=5 exceeds prompt_lookup_max=4"),
        ({"method": "ngram", "model": "tinytales"}, "model='tinytales', but the method 'ngram' uses none"),
        ({"method": "draft_model"}, "the method 'draft_model' needs a model"),
        (
            {"method": "ngram", "draft_sample_method": "probabilistic"},
            "draft_sample_method='probabilistic' needs a draft with probabilities",
        ),
        (DRAFT | {"draft_sample_method": "warm"}, "draft_sample_method='warm' is not supported"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        EngineConfig(max_model_len=64, speculative_config=config)


def test_what_is_no_dict_is_named():
    with pytest.raises(TypeError, match="speculative_config is a str: give a dict"):
        EngineConfig(speculative_config="ngram")


@pytest.mark.parametrize(
    ("kv_cache", "config", "message"),
    [
        ("none", {"method": "ngram"}, "speculative_config needs a KV cache, and kv_cache='none'"),
        ("virtual", DRAFT, "keeps its own cache in the same blocks, and kv_cache='virtual' has none"),
    ],
)
def test_a_cache_that_cannot_hold_drafts_is_refused(kv_cache, config, message):
    with pytest.raises(ValueError, match=message):
        EngineConfig(kv_cache=kv_cache, speculative_config=config)


def test_a_draft_with_other_tokens_is_refused():
    with pytest.raises(CheckpointError, match="'tinytales-draft' has another tokenizer"):
        tiny.llm(speculative_config=DRAFT)


def test_a_draft_with_too_few_positions_is_refused():
    own = {"method": "draft_model", "model": str(tiny.folder())}
    with LLM(tiny.folder(), speculative_config=own) as llm:
        assert llm.generate([[7, 8]], SamplingParams(max_tokens=2))[0].finished
        config, limit = SpeculativeConfig.of(own), tiny.CONTEXT
        with pytest.raises(
            ValueError, match=f"has {limit} positions and max_model_len is {limit + 1}: set max"
        ):
            check_length(config, llm.model.config, limit + 1)


@pytest.mark.parametrize("method", ["ngram", "suffix", "draft_model"])
@pytest.mark.parametrize("temperature", [0, 1])
def test_the_tokens_are_those_without_speculation(method, temperature):
    config = {"method": method} | ({"model": "tinytales-draft"} if method == "draft_model" else {})
    prompts = ["Once upon a time there was a small dragon who", "The king said the king said the king", "A"]
    params = SamplingParams(temperature=temperature, seed=1, max_tokens=40, n=1 + temperature)
    with LLM("tinytales", max_model_len=256) as llm, llm.variant(speculative_config=config) as drafting:
        wanted, found = llm.generate(prompts, params), drafting.generate(prompts, params)
        assert [[o.token_ids for o in r.outputs] for r in found] == [
            [o.token_ids for o in r.outputs] for r in wanted
        ]
        accepted = sum(r.metrics.num_accepted_tokens for r in found)
        assert accepted > 0 or method == "ngram"  # this model does not repeat itself
        assert drafting.engine.memory.num_free == drafting.engine.memory.num_blocks


def test_memory_is_divided_by_the_bytes_of_both_models(monkeypatch):
    monkeypatch.setattr(
        "minillm.assembly.available_bytes", lambda: 4 * 10**6
    )  # a quarter of it is for the caches
    own = {"method": "draft_model", "model": str(tiny.folder())}
    with tiny.llm(max_num_seqs=512) as plain, tiny.llm(max_num_seqs=512, speculative_config=own) as drafting:
        runner = drafting.engine.runner
        alone, both = plain.engine.runner.cache, [runner.cache, runner.draft_cache]
        assert both[0].num_blocks == both[1].num_blocks == drafting.engine.memory.num_blocks
        assert 0.98e6 < alone.nbytes <= 1e6
        assert 0.98e6 < sum(cache.nbytes for cache in both) <= 1e6
