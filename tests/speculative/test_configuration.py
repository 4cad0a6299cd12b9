"""`speculative_config`: each method runs, and each wrong value is named with its remedy."""

import numpy as np
import pytest
import torch

import minillm
from minillm import LLM, SamplingParams
from minillm.config import EngineConfig, SpeculativeConfig
from minillm.errors import CheckpointError
from minillm.speculative.load import check_length
from tests.engine import tiny
from tests.speculative import pairs

DRAFT = {"method": "draft_model", "model": "tinytales-draft"}


def finish(llm):
    while llm.engine.has_unfinished:
        llm.engine.step()


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
    with pytest.raises(
        CheckpointError, match=r"'tinytales-draft' has another tokenizer: .* Choose a draft model with"
    ):
        tiny.llm(speculative_config=DRAFT)
    assert tiny.llm().generate([[7, 8]], SamplingParams(max_tokens=2))[0].finished


def test_a_draft_with_another_vocabulary_is_refused_without_tokenizers_too(tmp_path):
    """One of them has a tokenizer and the other one has none: then only the sizes can be compared."""
    pairs.reference(0.0, 280).save_pretrained(tmp_path / "draft")
    config = {"method": "draft_model", "model": str(tmp_path / "draft")}
    with pytest.raises(
        CheckpointError, match="has a vocabulary of 280 tokens and the model has 300: choose a draft"
    ):
        tiny.llm(speculative_config=config)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/folder", "no model '/no/such/folder': it is not a folder"),
        ("no-such-model", "no model 'no-such-model': .*not a bundled model"),
    ],
)
def test_a_draft_that_does_not_exist_is_named(model, message):
    with pytest.raises(CheckpointError, match=message):
        tiny.llm(speculative_config={"method": "draft_model", "model": model})


def test_more_drafts_than_the_models_context_are_refused_when_the_model_is_known():
    config = {"method": "ngram", "num_speculative_tokens": tiny.CONTEXT}
    with pytest.raises(ValueError, match=f"={tiny.CONTEXT} does not fit into max_model_len={tiny.CONTEXT}"):
        LLM(tiny.folder(), speculative_config=config)


def test_a_draft_shorter_than_the_context_is_refused_before_any_request():
    with pytest.raises(ValueError, match="has 48 positions and max_model_len is 96: set max_model_len=48"):
        tiny.llm(speculative_config=pairs.draft(positions=48))
    with tiny.llm(speculative_config=pairs.draft(positions=48), max_model_len=48) as llm:
        params = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
        [output] = llm.generate([list(tiny.PROMPTS[0])], params)
        assert len(output.outputs[0].token_ids) == 43


def test_a_rebuild_with_a_wrong_configuration_changes_nothing():
    llm = tiny.llm()
    output = llm.engine.add_request(tiny.PROMPTS[0], SamplingParams(temperature=0, max_tokens=8))
    for config in ({"method": "medusa"}, DRAFT, {"method": "draft_model", "model": "/no/such/folder"}):
        with pytest.raises((ValueError, CheckpointError)):
            llm.rebuild(speculative_config=config)
    finish(llm)
    assert output.outputs[0].token_ids == tiny.greedy(tiny.PROMPTS[0], 8)


# ---- A learner's `propose` ----


def drafting(propose):
    with minillm.swap(propose=propose):
        return tiny.llm()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("abc", "got the draft 'a': drafts are token ids, which are integers from 0 to 299"),
        (["the", "king"], "got the draft 'the'"),
        ([3, 4.0], "got the draft 4.0"),
        ([3, True], "got the draft True"),
        ([3, None], "got the draft None"),
        ([[3, 4], [5]], r"got the draft \[3, 4\]"),
        ([3, -1], "got the draft -1"),
        ([3, tiny.VOCAB_SIZE], "got the draft 300"),
        ([3, 2**70], "got the draft 1180591620717411303424"),
        (None, "propose returned None: return a list of token ids, empty for no draft"),
        (7, "propose returned 7: return a list"),
    ],
)  # fmt: skip
def test_drafts_that_are_no_tokens_are_named_and_end_only_the_requests_of_the_step(returned, message):
    calls = []

    def propose(token_ids, limit):
        calls.append(limit)
        return returned if len(calls) == 5 else []

    llm = drafting(propose)
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    outputs = [llm.engine.add_request(tiny.PROMPTS[0], params, request_id=name) for name in "ab"]
    waiting = [llm.engine.add_request(tiny.PROMPTS[i], params) for i in range(4)]
    with pytest.raises((TypeError, ValueError), match=message):
        finish(llm)
    assert all(output.error is not None for output in outputs)
    finish(llm)
    tiny.assert_idle(llm)
    alone = tiny.llm()
    unharmed = [(i, output) for i, output in enumerate(waiting) if output.error is None]
    assert len(unharmed) >= 2
    for i, output in unharmed:
        assert tiny.tokens([output]) == tiny.tokens(alone.generate([list(tiny.PROMPTS[i])], params))


def test_a_wrong_number_of_lists_is_named():
    llm = tiny.llm()
    llm.engine.proposer = tiny.Guess(lambda requests: [[] for _ in requests])
    own = llm.engine.proposer.propose
    llm.engine.proposer.propose = lambda computed: own(computed)[1:]
    llm.engine.add_request(tiny.PROMPTS[0], SamplingParams(max_tokens=4))
    with pytest.raises(ValueError, match="returned drafts for 0 requests, but 1 were asked for"):
        llm.engine.step()
    tiny.assert_idle(llm)


@pytest.mark.parametrize("kind", [tuple, iter, np.array, torch.tensor])
def test_drafts_of_any_kind_of_list_and_of_any_number_are_accepted(kind):
    """Those beyond the limit are dropped."""
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    [wanted] = tiny.llm().generate([list(tiny.PROMPTS[0])], params)
    text = [*tiny.PROMPTS[0], *wanted.outputs[0].token_ids, *[3] * 50]
    llm = drafting(lambda token_ids, limit: kind(text[len(token_ids) :]))
    [output] = llm.generate([list(tiny.PROMPTS[0])], params)
    assert tiny.tokens([output]) == tiny.tokens([wanted])
    assert output.metrics.num_draft_tokens == output.metrics.num_accepted_tokens == 5  # and a bonus token
    assert all(type(token_id) is int for token_id in output.outputs[0].token_ids)


def test_a_propose_that_changes_its_tokens_changes_no_request():
    def propose(token_ids, limit):
        token_ids += [9] * limit
        return token_ids[-limit:]

    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    prompts = [list(prompt) for prompt in tiny.PROMPTS[:3]]
    found = drafting(propose).generate(prompts, params)
    assert tiny.tokens(found) == tiny.tokens(tiny.llm().generate(prompts, params))


def test_a_swapped_propose_takes_the_place_of_a_draft_model():
    """The draft model would get no tokens. Its keys and values would be missing, so no block would be published."""
    with minillm.swap(propose=lambda token_ids, limit: [7] * limit):
        llm = tiny.llm(speculative_config=pairs.draft(), block_size=8)
    prompt = list(tiny.PROMPTS[3])
    params = SamplingParams(temperature=0, max_tokens=4)
    llm.generate([prompt], params)
    [again] = llm.generate([prompt], params)
    assert again.num_cached_tokens == 32 and llm.engine.runner.draft_cache is None


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
