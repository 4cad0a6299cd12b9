"""However the work is cut and shared, the tokens are the same: those of `transformers`, and those of a lone run."""

from dataclasses import replace

import pytest
import torch

from minillm import SamplingParams
from minillm.measure.trace import StepRecord
from minillm.sampling import derive_seed
from tests.engine import tiny
from tests.engine.tiny import PROMPTS

MAX_TOKENS = 24
# The longest prompt is 40 tokens and grows by 24: nine blocks of eight hold that, and two such requests never.
SMALL = {"num_gpu_blocks_override": 9, "block_size": 8}
WAYS = {
    "together": {},
    "rows for two": {"max_num_seqs": 2},
    "one token a step": {"max_num_batched_tokens": 1},
    "chunks of 7": {"max_num_batched_tokens": 7},
    "chunks of 16": {"max_num_batched_tokens": 16, "max_num_seqs": 3},
    "a threshold of 5": {"long_prefill_token_threshold": 5},
    "whole prompts": {"max_num_batched_tokens": tiny.CONTEXT, "enable_chunked_prefill": False},
    "blocks of one": {"block_size": 1},
    "no prefix caching": {"enable_prefix_caching": False},
    "few blocks": SMALL,
    "few blocks, chunks of 7": SMALL | {"max_num_batched_tokens": 7},
    "few blocks, one token a step": SMALL | {"max_num_batched_tokens": 1},
    "few blocks, whole prompts": SMALL
    | {"max_num_batched_tokens": tiny.CONTEXT, "enable_chunked_prefill": False},
    "few blocks, no prefix caching": SMALL | {"enable_prefix_caching": False},
    "few blocks, static": SMALL | {"scheduling_policy": "static"},
    "static": {"scheduling_policy": "static", "max_num_seqs": 3},
    "priority": {"scheduling_policy": "priority", "max_num_seqs": 2},
    "contiguous": {"kv_cache": "contiguous"},
    "contiguous, rows for two": {"kv_cache": "contiguous", "max_num_seqs": 2},
    "virtual": {"kv_cache": "virtual"},
    "virtual, few pages": {"kv_cache": "virtual", "num_gpu_blocks_override": 3},
    "no cache": {"kv_cache": "none"},
    "no cache, rows for two": {"kv_cache": "none", "max_num_seqs": 2},
}
every_way = pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS.keys())


def staggered(llm, params, prompts=PROMPTS):
    """Two prompts to begin with, then another one every third step; the outputs in order."""
    outputs, steps = [], 0
    while len(outputs) < len(prompts) or llm.engine.has_unfinished:
        while len(outputs) < min(len(prompts), 2 + steps // 3):
            outputs.append(llm.engine.add_request(prompts[len(outputs)], params(len(outputs))))
        llm.engine.step()
        steps += 1
    tiny.assert_idle(llm)
    return tiny.tokens(outputs)


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_a_prompt_alone_gets_the_tokens_of_transformers(prompt):
    params = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)
    [output] = tiny.llm().generate(list(prompt), params)
    assert output.outputs[0].token_ids == tiny.greedy(prompt, MAX_TOKENS)


@every_way
def test_arriving_one_by_one_every_prompt_gets_the_tokens_of_transformers(changes):
    found = staggered(tiny.llm(**changes), lambda i: SamplingParams(temperature=0, max_tokens=MAX_TOKENS - i))
    assert found == [[tiny.greedy(prompt, MAX_TOKENS - i)] for i, prompt in enumerate(PROMPTS)]


@every_way
def test_a_second_round_over_known_prefixes_gets_the_same_tokens(changes):
    llm = tiny.llm(**changes)
    prompts = [prompt + PROMPTS[2] for prompt in PROMPTS[:3]] + [PROMPTS[3], PROMPTS[3][:24], PROMPTS[3][:17]]
    params = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)
    expected = [[tiny.greedy(prompt, MAX_TOKENS)] for prompt in prompts]
    for _ in range(2):
        assert staggered(llm, lambda _: params, prompts) == expected


@pytest.mark.parametrize("blocks", [None, 12, 9])
@pytest.mark.parametrize("budget", [pytest.param(2048, marks=pytest.mark.slow), 5])
def test_samples_of_one_prompt_are_those_of_lone_runs(blocks, budget):
    """n = 4 shares the prompt's blocks, copies what it writes, and is preempted where blocks are few."""
    alone = tiny.llm()
    llm = tiny.llm(num_gpu_blocks_override=blocks, block_size=8, max_num_batched_tokens=budget)
    for prompt in (PROMPTS[2], PROMPTS[3], PROMPTS[3][:8]):
        params = SamplingParams(n=4, temperature=1.2, seed=5, max_tokens=MAX_TOKENS, ignore_eos=True)
        [output] = llm.generate(list(prompt), params)
        singles = [replace(params, n=1, seed=5 + i) for i in range(4)]
        expected = [alone.generate(list(prompt), single)[0].outputs[0].token_ids for single in singles]
        assert [sample.token_ids for sample in output.outputs] == expected
        tiny.assert_idle(llm)


def test_where_blocks_are_few_requests_are_preempted():
    """Or the gates above would prove nothing about it."""
    llm = tiny.llm(**SMALL, trace=True)
    staggered(llm, lambda _: SamplingParams(temperature=0, max_tokens=MAX_TOKENS, ignore_eos=True))
    steps = llm.trace.of(StepRecord)
    assert sum(len(step.preempted) for step in steps) >= 2
    again = tiny.llm(**SMALL, trace=True)
    again.generate(
        [list(PROMPTS[2])] * 4, SamplingParams(n=2, max_tokens=MAX_TOKENS, ignore_eos=True, seed=1)
    )
    steps = again.trace.of(StepRecord)
    assert any(step.copied for step in steps) and any(step.preempted for step in steps)
    assert any(part.num_cached_tokens for step in steps for part in step.scheduled)


def test_the_reference_is_no_empty_gate():
    outputs = [tiny.greedy(prompt, MAX_TOKENS) for prompt in PROMPTS]
    assert len({tuple(output) for output in outputs}) == len(PROMPTS)
    assert any(len(output) == MAX_TOKENS and len(set(output)) > 5 for output in outputs)
    assert any(len(output) < MAX_TOKENS and output[-1] in tiny.EOS for output in outputs)


def seeded(i):
    return SamplingParams(temperature=1.3, top_p=0.9, seed=i, max_tokens=MAX_TOKENS, ignore_eos=True)


@pytest.fixture(scope="module")
def alone():
    """Return the tokens of each prompt when it runs alone with its own seed."""
    llm = tiny.llm()
    return tiny.tokens([llm.generate(list(prompt), seeded(i))[0] for i, prompt in enumerate(PROMPTS)])


@every_way
def test_a_seeded_sample_is_the_same_in_company_and_alone(alone, changes):
    assert staggered(tiny.llm(**changes), seeded) == alone


def test_a_seeded_sample_is_the_same_when_streamed(alone):
    llm = tiny.llm(max_num_batched_tokens=16)
    streams = [llm.stream(list(prompt), seeded(i)) for i, prompt in enumerate(PROMPTS)]
    assert [[[i for piece in stream for i in piece.token_ids]] for stream in streams] == alone


def test_without_a_seed_a_sample_follows_from_the_llms_seed_and_the_order_of_arrival():
    params = SamplingParams(max_tokens=MAX_TOKENS, ignore_eos=True)
    prompts = [list(PROMPTS[0])] * 3
    together = tiny.tokens(tiny.llm(seed=7).generate(prompts, params))
    again = tiny.llm(seed=7, max_num_batched_tokens=7)
    assert tiny.tokens(again.generate(prompts[:1], params) + again.generate(prompts[1:], params)) == together
    assert len({str(sample) for sample in together}) == 3
    assert tiny.tokens(tiny.llm(seed=8).generate(prompts, params)) != together
    named = [SamplingParams(max_tokens=MAX_TOKENS, ignore_eos=True, seed=derive_seed(7, i)) for i in range(3)]
    assert tiny.tokens(tiny.llm(seed=0).generate(prompts, named)) == together


@pytest.mark.parametrize("seed", [11, 2**64 - 2, None])
def test_sample_i_of_n_is_the_single_sample_of_seed_plus_i(seed):
    llm, prompt = tiny.llm(), list(PROMPTS[2])
    [output] = llm.generate(prompt, SamplingParams(n=3, max_tokens=MAX_TOKENS, ignore_eos=True, seed=seed))
    assert [sample.index for sample in output.outputs] == [0, 1, 2]
    first = derive_seed(0, 0) if seed is None else seed
    singles = [
        SamplingParams(max_tokens=MAX_TOKENS, ignore_eos=True, seed=(first + i) % 2**64) for i in range(3)
    ]
    expected = tiny.tokens(llm.generate([prompt] * 3, singles))
    assert tiny.tokens([output]) == [[each[0] for each in expected]]


@every_way
def test_logprobs_are_those_of_transformers(changes):
    llm, prompts = tiny.llm(**changes), [list(prompt) for prompt in PROMPTS[2:5]]
    params = SamplingParams(
        seed=1, temperature=0.5, repetition_penalty=1.5, logprobs=3, prompt_logprobs=2, max_tokens=6
    )
    for output in llm.generate(prompts, params):
        [sample], num_prompt_tokens = output.outputs, len(output.prompt_token_ids)
        ids = output.prompt_token_ids + sample.token_ids
        expected = tiny.log_softmax(ids)  # of the raw logits, whatever they were sampled with
        assert output.prompt_logprobs[0] is None
        report = [*output.prompt_logprobs[1:], *sample.logprobs]
        assert len(report) == len(ids) - 1
        for i, at in enumerate(report):
            best = expected[i].topk(3 if i + 1 >= num_prompt_tokens else 2).indices.tolist()
            assert set(at) == {ids[i + 1], *best} and next(iter(at)) == ids[i + 1]
            for token_id, found in at.items():
                assert found.logprob == pytest.approx(expected[i, token_id].item(), abs=1e-4)
                assert found.rank == 1 + int((expected[i] > expected[i, token_id]).sum())
        total = sum(at[ids[num_prompt_tokens + i]].logprob for i, at in enumerate(sample.logprobs))
        assert sample.cumulative_logprob == pytest.approx(total, abs=1e-9)


def test_logprobs_are_given_to_whom_asked():
    llm, prompts = tiny.llm(), [list(PROMPTS[0])] * 3
    asked = [
        SamplingParams(temperature=0, max_tokens=2, logprobs=0),
        SamplingParams(temperature=0, max_tokens=2),
        SamplingParams(n=2, max_tokens=2, prompt_logprobs=0),
    ]
    first, second, third = llm.generate(prompts, asked)
    assert [len(at) for at in first.outputs[0].logprobs] == [1, 1] and first.prompt_logprobs is None
    assert second.outputs[0].logprobs is None and second.outputs[0].cumulative_logprob is None
    assert [len(at) for at in third.prompt_logprobs[1:]] == [1] * (len(PROMPTS[0]) - 1)


def test_prompt_logprobs_of_chunks_are_those_of_the_whole():
    params = SamplingParams(max_tokens=1, prompt_logprobs=1)
    whole = tiny.llm().generate(list(PROMPTS[3]), params)
    parts = tiny.llm(max_num_batched_tokens=7).generate(list(PROMPTS[3]), params)
    for one, other in zip(whole[0].prompt_logprobs[1:], parts[0].prompt_logprobs[1:], strict=True):
        assert {i: at.logprob for i, at in one.items()} == pytest.approx(
            {i: at.logprob for i, at in other.items()}, abs=1e-5
        )


def test_unwritten_memory_of_the_cache_is_never_read():
    llm = tiny.llm()
    for memory in tiny.cache_tensors(llm):
        memory.fill_(torch.nan)
    found = staggered(llm, lambda _: SamplingParams(temperature=0, max_tokens=MAX_TOKENS))
    assert found == [[tiny.greedy(prompt, MAX_TOKENS)] for prompt in PROMPTS]
