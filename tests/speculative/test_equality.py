"""Certain drafts change no output: tokens, texts, reasons and logprobs are those of the engine without speculation.

Each run serves requests of every kind at once, next to each other, in one of many ways. A token may differ only if two
logits, or a random number and the edge between two tokens, are within 1e-4.
"""

import asyncio
import random
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain

import pytest
import torch

from minillm import LLM, SamplingParams
from minillm.measure.trace import StepRecord
from minillm.sampling import SamplingRow, Stream, draw, probabilities, process_logits, uniform
from tests.engine import tiny
from tests.engine.test_drafts import assert_equal, assert_only_what_was_verified_is_known
from tests.speculative import pairs

MAX_TOKENS = 20
FEW = {"temperature": 1.0, "allowed_token_ids": [7, 8, 9, 10]}  # few tokens repeat themselves
KINDS = {
    "greedy": {"temperature": 0},
    "cold": {"temperature": 0.3, "top_k": 5},
    "warm": {"temperature": 1.3, "top_p": 0.9, "min_p": 0.01},
    "few tokens": FEW,
    "forks": FEW | {"n": 3},
    "penalties": FEW | {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2, "min_tokens": 9},
    "biases and bad words": {"temperature": 0.5, "logit_bias": {7: 3.0, 9: -3.0}, "bad_words": ["the", "q"]},
    "stop strings": {"temperature": 0.3, "stop": ["e", "th", "\ufffd"], "min_tokens": 2},
    "kept stop strings": {"temperature": 0.3, "stop": ["a", "o"], "include_stop_str_in_output": True},
    "stop tokens": FEW | {"stop_token_ids": [8], "min_tokens": 5},
    "logprobs": {"temperature": 0.3, "logprobs": 2, "prompt_logprobs": 1},
    "all logprobs": FEW | {"logprobs": -1},
    "a processor": {"temperature": 0.5, "logits_processors": [lambda output, logits: logits.roll(len(output)) / 2]},
    "eos": {"temperature": 0, "logit_bias": {0: 4.0, 5: 4.0}, "min_tokens": 3},
}  # fmt: skip
FEW_BLOCKS = {"num_gpu_blocks_override": 15, "block_size": 4}
WAYS = {
    "together": {},
    "chunks": {"max_num_batched_tokens": 11, "block_size": 8},
    "a threshold": {"long_prefill_token_threshold": 3, "max_num_seqs": 3},
    "whole prompts": {"max_num_batched_tokens": tiny.CONTEXT, "enable_chunked_prefill": False},
    "few blocks": FEW_BLOCKS,
    "few blocks, chunks": FEW_BLOCKS | {"max_num_batched_tokens": 9},
    "few blocks, no prefix caching": FEW_BLOCKS | {"enable_prefix_caching": False},
    "blocks of one": {"block_size": 1},
    "priority": {"scheduling_policy": "priority", "max_num_seqs": 2},
    "static": {"scheduling_policy": "static"},
    "static, few blocks": FEW_BLOCKS | {"scheduling_policy": "static"},
    "contiguous": {"kv_cache": "contiguous"},
    "virtual, few pages": {"kv_cache": "virtual", "num_gpu_blocks_override": 3},
    "keys and values in int8": {"kv_cache_dtype": "int8"},
    "weights in int8": {"quantization": "int8"},
    "weights in int4": {"quantization": "int4"},
}
OTHER_NUMBERS = (
    "keys and values in int8",
    "weights in int8",
    "weights in int4",
)  # the model itself differs there


@dataclass(frozen=True)
class Asked:
    prompt: list[int]
    params: SamplingParams
    priority: int


@cache
def requests(num_requests):
    """Return prompts of 1 to 40 tokens, of which many begin alike, with parameters of every kind in turn."""
    luck, found = random.Random(5), []
    stems = [luck.choices(range(3, 40), k=30) for _ in range(4)]
    for i in range(num_requests):
        stem = luck.choice(stems)[: luck.randrange(1, 31)]
        prompt = [*stem, *luck.choices(range(3, tiny.VOCAB_SIZE), k=luck.randrange(11))]
        fields = list(KINDS.values())[i % len(KINDS)]
        params = SamplingParams(seed=i, max_tokens=MAX_TOKENS - i % 5, **fields)
        found.append(Asked(prompt, params, luck.randrange(3)))
    return found


def run(llm, asked, check=lambda llm: None):
    """Serve the requests, a new one in most steps. Return their outputs."""
    outputs, luck = [], random.Random(1)
    while len(outputs) < len(asked) or llm.engine.has_unfinished:
        while len(outputs) < len(asked) and luck.random() < 0.6:
            one = asked[len(outputs)]
            outputs.append(llm.engine.add_request(one.prompt, one.params, priority=one.priority))
        llm.engine.step()
        check(llm)
    tiny.assert_idle(llm)
    return outputs


@cache
def plain(way, num_requests):
    changes = {way: WAYS[way]} if way in OTHER_NUMBERS else {}
    return run(tiny.llm(**changes.get(way, {})), requests(num_requests))


def assert_drafts_were_used(outputs):
    """Some drafts were right and some were wrong, or this would prove nothing."""
    drafted = sum(output.metrics.num_draft_tokens for output in outputs)
    accepted = sum(output.metrics.num_accepted_tokens for output in outputs)
    assert 0.02 * drafted < accepted < 0.98 * drafted


def assert_prompt_logprobs_equal(found, expected):
    for output, known in zip(found, expected, strict=True):
        for at, wanted in zip(output.prompt_logprobs or (), known.prompt_logprobs or (), strict=True):
            assert (at is None) == (wanted is None)
            if at is not None:
                values = {i: one.logprob for i, one in wanted.items()}
                assert {i: one.logprob for i, one in at.items()} == pytest.approx(values, abs=1e-4)


def tied(llm, prompt, found, wanted, params):
    """Return whether two logits, or the random number and an edge, are within 1e-4 where two outputs first differ."""
    at = next(i for i, (one, other) in enumerate(zip(found, wanted, strict=False)) if one != other)
    _, logits = pairs.fresh_run(llm.model, [*prompt, *wanted[:at]])
    forbidden = llm.engine._forbid_bad_words(params)
    row = SamplingRow(params, params.seed, prompt, wanted[:at], llm.engine.eos_token_ids, forbidden)
    logits = process_logits(logits[-1:], [row], llm.engine.vocab_size)
    if params.is_greedy:
        first, second = logits[0].topk(2).values.tolist()
        return first - second < 1e-4
    u = torch.from_numpy(uniform([row.seed], [row.position], Stream.SAMPLE))
    p = probabilities(logits, [row])
    near = [draw(p, (u + shift).clamp(0, 1 - 2**-53)).item() for shift in (-1e-4, 1e-4)]
    return near[0] != near[1]


def assert_equal_or_tied(llm, found, expected, params):
    """Assert that all outputs are equal, but for at most one in a hundred with a tie. `llm` has no speculation."""
    differing = []
    for i, (output, known) in enumerate(zip(found, expected, strict=True)):
        for sample, wanted in zip(output.outputs, known.outputs, strict=True):
            if sample.token_ids != wanted.token_ids:
                own = replace(params[i], n=1, seed=params[i].seed + sample.index)
                assert tied(llm, known.prompt_token_ids, sample.token_ids, wanted.token_ids, own)
                differing.append(i)
    assert len(differing) <= 1 + len(found) // 100
    equal = [i for i in range(len(found)) if i not in differing]
    found, expected = [found[i] for i in equal], [expected[i] for i in equal]
    assert_equal(found, expected)
    assert_prompt_logprobs_equal(found, expected)


def assert_speculation_changes_nothing(name, way, num_requests):
    asked = requests(num_requests)
    llm = pairs.llm(name, trace=True, **WAYS[way])
    paged = llm.config.kv_cache == "paged"
    outputs = run(llm, asked, tiny.assert_blocks_add_up if paged else lambda llm: None)
    other = way in OTHER_NUMBERS
    without = tiny.llm(**WAYS[way] if other else {})
    expected = plain(way if other else "together", num_requests)
    assert_equal_or_tied(without, outputs, expected, [one.params for one in asked])
    assert_drafts_were_used(outputs)
    assert_only_what_was_verified_is_known(llm, outputs)
    if WAYS[way].get("num_gpu_blocks_override") == FEW_BLOCKS["num_gpu_blocks_override"]:
        assert any(step.preempted for step in llm.trace.of(StepRecord))


@pytest.fixture(autouse=True)
def one_product_for_all_numbers_of_rows(monkeypatch):
    monkeypatch.setenv("MINILLM_LINEAR", "reference")


NAMES = list(pairs.configs())
names = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize(("way", "name"), [(way, NAMES[i % 3]) for i, way in enumerate(WAYS)])
def test_in_every_way_the_outputs_are_those_without_speculation(way, name):
    assert_speculation_changes_nothing(name, way, len(KINDS))


@pytest.mark.slow
@names
def test_the_outputs_of_many_prompts_are_those_without_speculation(name):
    """210 prompts, 15 of each kind, 240 samples: with chunks, hits, preemption and copies of shared blocks."""
    assert_speculation_changes_nothing(name, "few blocks, chunks", 15 * len(KINDS))


@pytest.mark.parametrize("name", ["draft model"])
def test_an_aborted_request_keeps_a_beginning_and_changes_no_other(name):
    asked, luck = requests(len(KINDS)), random.Random(2)
    llm, expected = pairs.llm(name, **WAYS["few blocks"]), plain("together", len(KINDS))
    gone = luck.sample(range(len(asked)), 5)

    def abort(llm):
        tiny.assert_blocks_add_up(llm)
        if luck.random() < 0.3:
            llm.engine.abort(str(luck.choice(gone)))

    outputs = run(llm, asked, abort)
    kept = [i for i in range(len(asked)) if i not in gone]
    assert_equal([outputs[i] for i in kept], [expected[i] for i in kept])
    for i in gone:
        for sample, known in zip(outputs[i].outputs, expected[i].outputs, strict=True):
            assert sample.token_ids == known.token_ids[: len(sample.token_ids)]
            assert known.text.startswith(sample.text)
    assert any(sample.finish_reason == "abort" for i in gone for sample in outputs[i].outputs)


@pytest.mark.parametrize(
    ("name", "where"), [("ngram", "forward"), ("draft model", "propose"), ("suffix", "propose")]
)
def test_after_ctrl_c_in_a_step_the_outputs_are_the_same(name, where, monkeypatch):
    """Each third step is interrupted once, in the model or in the proposer, after tokens were given out."""
    llm, asked, calls = pairs.llm(name, **WAYS["few blocks"]), requests(len(KINDS)), [0]
    owner, method = (llm.engine.runner, "run") if where == "forward" else (llm.engine.proposer, "propose")
    whole = getattr(owner, method)

    def interrupted(*given):
        calls[0] += 1
        found = whole(*given)
        if calls[0] % 3 == 0:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(owner, method, interrupted)
    outputs = [llm.engine.add_request(one.prompt, one.params) for one in asked]
    interrupts = 0
    while llm.engine.has_unfinished:
        try:
            llm.engine.step()
        except KeyboardInterrupt:
            interrupts += 1
        tiny.assert_blocks_add_up(llm)
    assert interrupts > 3
    assert_equal(outputs, plain("together", len(KINDS)))


@pytest.mark.parametrize("name", ["draft model"])
def test_an_error_of_a_step_ends_its_requests_and_the_others_are_the_same(name, monkeypatch):
    llm, asked = pairs.llm(name, max_num_seqs=3), requests(len(KINDS))
    outputs = [llm.engine.add_request(one.prompt, one.params) for one in asked]
    for _ in range(4):
        llm.engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(llm.engine.proposer, "propose", lambda computed: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            llm.engine.step()
    while llm.engine.has_unfinished:
        llm.engine.step()
    tiny.assert_idle(llm)
    failed = [i for i, output in enumerate(outputs) if isinstance(output.error, ZeroDivisionError)]
    assert 0 < len(failed) <= 3
    for output, known in zip(outputs, plain("together", len(KINDS)), strict=True):
        if output.error is None:
            assert_equal([output], [known])


def test_a_run_goes_on_the_same_when_the_engine_is_rebuilt_around_it():
    """From one proposer to the next, to a sampled draft and back: what is left of each must not matter."""
    asked, configs = requests(len(KINDS)), [*pairs.configs().values(), None]
    configs.insert(2, pairs.draft(0.03, draft_sample_method="probabilistic"))
    asked = [one for one in asked if one.params.is_greedy]
    llm = tiny.llm()
    for turn in range(4):
        outputs = [llm.engine.add_request(one.prompt, one.params) for one in asked]
        while llm.engine.has_unfinished:
            llm.rebuild(speculative_config=configs[turn % len(configs)], block_size=4 + turn)
            turn += 1
            for _ in range(2):
                llm.engine.step()
                tiny.assert_blocks_add_up(llm)
        expected = [
            plain("together", len(KINDS))[i] for i, one in enumerate(requests(len(KINDS))) if one in asked
        ]
        assert_equal(outputs, expected)
    llm.close()


@pytest.mark.parametrize("name", ["suffix", "draft model"])
def test_streams_are_pieces_of_the_same_texts(name):
    asked, expected = requests(len(KINDS)), plain("together", len(KINDS))

    def assert_pieces(deltas, known):
        for sample in known.outputs:
            mine = [delta for delta in deltas if delta.index == sample.index]
            assert "".join(delta.text for delta in mine) == sample.text
            assert list(chain.from_iterable(delta.token_ids for delta in mine)) == sample.token_ids
            assert [delta.finish_reason for delta in mine[:-1]] == [None] * (len(mine) - 1)
            assert (mine[-1].finish_reason, mine[-1].stop_reason) == (
                sample.finish_reason,
                sample.stop_reason,
            )
            if sample.logprobs is not None:
                reports = list(chain.from_iterable(delta.logprobs for delta in mine))
                assert [list(at) for at in reports] == [list(at) for at in sample.logprobs]
        return len(deltas) < sum(len(sample.token_ids) for sample in known.outputs)

    async def gather(llm):
        async def one(i):
            return [delta async for delta in llm.astream(asked[i].prompt, asked[i].params)]

        return await asyncio.gather(*map(one, range(len(asked))))

    with pairs.llm(name) as llm:
        alone = [list(llm.stream(one.prompt, one.params)) for one in asked[:4]]
        together = asyncio.run(gather(llm))
    several = [
        assert_pieces(*each) for each in zip([*alone, *together], [*expected[:4], *expected], strict=True)
    ]
    assert any(several), "a delta of a step has all of its tokens"


# ---- The bundled models ----


STORIES = [
    "Once upon a time there was a small dragon who", "The king said the king said the king", "One day, Lily",
    "Tom and his dog went to the park. Tom and his dog", "There was a big red", "A",
]  # fmt: skip


@pytest.mark.parametrize("method", ["ngram", "suffix", "draft_model"])
def test_stories_are_those_without_speculation(method):
    config = {"method": method, "num_speculative_tokens": 3}
    config |= {"model": "tinytales-draft"} if method == "draft_model" else {}
    params = [
        SamplingParams(
            temperature=i % 2, seed=i, n=1 + 2 * (i == 5), max_tokens=24, stop=["."] if i == 3 else None
        )
        for i in range(len(STORIES))
    ]
    with LLM("tinytales", max_model_len=128) as llm:
        few = {"num_gpu_blocks_override": 12, "block_size": 8, "max_num_batched_tokens": 30}
        with llm.variant(speculative_config=config, **few) as drafting:
            expected = llm.generate(STORIES, params, use_tqdm=False)
            found = drafting.generate(STORIES, params, use_tqdm=False)
            tiny.assert_idle(drafting)
        assert_equal_or_tied(llm, found, expected, params)
        assert method == "ngram" or sum(output.metrics.num_accepted_tokens for output in found) > 5
