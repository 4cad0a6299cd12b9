"""Several tokens per step: whatever is drafted, the outputs are those without drafts, and no draft leaves a trace.

The drafts here come from no model. An oracle knows what will be sampled; a liar is right for a while; junk is random.
"""

import random
from functools import cache

import pytest

from minillm import SamplingParams
from minillm.measure.trace import StepRecord, TokenRecord
from tests.engine import tiny
from tests.engine.test_equality import SMALL
from tests.engine.tiny import PROMPTS, Guess

MAX_TOKENS = 24
PARAMS = {
    "greedy": {"temperature": 0},
    "sampled": {"seed": 3, "temperature": 1.5, "top_p": 0.9},
    "forks": {"seed": 3, "n": 3, "temperature": 1.2, "top_k": 20},
    "penalties": {
        "seed": 4, "min_tokens": 9, "repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2,
    },
    "stop strings": {"seed": 5, "temperature": 1.5, "stop": ["e", "th", "\ufffd"], "min_tokens": 2},
    "bad words and biases": {"seed": 6, "bad_words": ["the", "q"], "logit_bias": {7: 2.0, 9: -3.0}},
    "logprobs": {"seed": 7, "logprobs": 2, "prompt_logprobs": 1},
}  # fmt: skip
WAYS = {
    "together": {},
    "chunks of 7": {"max_num_batched_tokens": 7},
    "a threshold of 3": {"long_prefill_token_threshold": 3},
    "blocks of one": {"block_size": 1},
    "no prefix caching": {"enable_prefix_caching": False},
    "few blocks": SMALL,
    "few blocks, chunks of 7": SMALL | {"max_num_batched_tokens": 7},
    "priority, rows for two": {"scheduling_policy": "priority", "max_num_seqs": 2},
    "static": {"scheduling_policy": "static"},
    "contiguous": {"kv_cache": "contiguous"},
    "virtual, few pages": {"kv_cache": "virtual", "num_gpu_blocks_override": 3},
    "no cache": {"kv_cache": "none"},
}


def params_of(kind, i=0):
    fields = {"max_tokens": MAX_TOKENS - i, "ignore_eos": kind != "greedy"} | PARAMS[kind]
    return SamplingParams(**fields)


@cache
def undrafted(kind):
    """Each prompt's output without drafts, and the tokens of its samples by request id."""
    outputs = tiny.llm().generate(
        [list(prompt) for prompt in PROMPTS], [params_of(kind, i) for i in range(len(PROMPTS))]
    )
    tokens = {}
    for i, output in enumerate(outputs):
        for sample in output.outputs:
            name = str(i) if len(output.outputs) == 1 else f"{i}.{sample.index}"
            tokens[name] = sample.token_ids
    return outputs, tokens


def oracle(tokens, most=4):
    """Drafts that are all right; after the end, tokens that must never come out."""

    def propose(requests):
        found = []
        for request in requests:
            done = len(request.output.token_ids)
            found.append((tokens[request.request_id] + [3] * most)[done : done + most])
        return found

    return propose


def liar(tokens, most=4):
    """Drafts of which some are right, from none to all of them."""
    luck, right = random.Random(0), oracle(tokens, most)

    def propose(requests):
        return [
            [token if luck.random() < 0.7 else luck.randrange(tiny.VOCAB_SIZE) for token in drafts]
            for drafts in right(requests)
        ]

    return propose


def junk(tokens, most=4):
    luck = random.Random(1)

    def propose(requests):
        return [luck.choices(range(tiny.VOCAB_SIZE), k=luck.randrange(most + 9)) for _ in requests]

    return propose


def drafted(kind, changes, make, prompts=PROMPTS):
    _, tokens = undrafted(kind)
    llm = tiny.llm(trace=True, **changes)
    llm.engine.proposer = Guess(make(tokens))
    outputs, steps = [], 0
    while len(outputs) < len(prompts) or llm.engine.has_unfinished:
        if len(outputs) < len(prompts):
            params = params_of(kind, len(outputs))
            outputs.append(llm.engine.add_request(prompts[len(outputs)], params))
        llm.engine.step()
        if changes.get("kv_cache", "paged") == "paged":
            tiny.assert_blocks_add_up(llm)
        steps += 1
        assert steps < 2000
    tiny.assert_idle(llm)
    return llm, outputs


def assert_equal(found, expected):
    for output, known in zip(found, expected, strict=True):
        assert output.error is None, output.error
        for sample, other in zip(output.outputs, known.outputs, strict=True):
            for name in ("token_ids", "text", "finish_reason", "stop_reason"):
                assert getattr(sample, name) == getattr(other, name), name
            if sample.logprobs is not None:
                assert sample.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-3)
                for report, wanted in zip(sample.logprobs, other.logprobs, strict=True):
                    assert report.keys() == wanted.keys()
                    assert [x.logprob for x in report.values()] == pytest.approx(
                        [x.logprob for x in wanted.values()], abs=1e-4
                    )
    for output, known in zip(found, expected, strict=True):
        reports = zip(output.prompt_logprobs or (), known.prompt_logprobs or (), strict=True)
        assert all((a or {}).keys() == (b or {}).keys() for a, b in reports)


def assert_only_what_was_verified_is_known(llm, outputs):
    """Every hash in the prefix cache is that of tokens that came out; the last one of a text has no keys and values."""
    prefix = llm.engine.memory.prefix
    if prefix is None:
        return
    allowed = set()
    for output in outputs:
        for sample in output.outputs:
            hashes: list[bytes] = []
            prefix.extend(hashes, [*output.prompt_token_ids, *sample.token_ids[:-1]])
            allowed.update(hashes)
    assert set(prefix._hash_of.values()) <= allowed


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("kind", PARAMS)
def test_outputs_are_those_without_drafts(kind, changes):
    makers = (oracle, liar, junk) if kind in ("greedy", "sampled") else (liar,)
    for make in makers:
        llm, outputs = drafted(kind, changes, make)
        assert_equal(outputs, undrafted(kind)[0])
        assert_only_what_was_verified_is_known(llm, outputs)
        steps = llm.trace.of(StepRecord)
        budget = changes.get("max_num_batched_tokens")
        assert budget is None or all(step.num_tokens() <= budget for step in steps)


@pytest.mark.parametrize("kind", ["greedy", "forks"])
def test_right_drafts_save_steps_and_the_trace_tells_them_apart(kind):
    llm, _ = drafted(kind, {}, oracle)
    plain, _ = drafted(kind, {}, lambda tokens: lambda requests: [[] for _ in requests])
    steps, plain_steps = (len(one.trace.of(StepRecord)) for one in (llm, plain))
    assert steps <= 0.45 * plain_steps
    origins = [record.origin for record in llm.trace.of(TokenRecord)]
    assert origins.count("accepted") > 3 * origins.count("bonus") > 0
    assert {record.origin for record in plain.trace.of(TokenRecord)} == {"sampled"}
    parts = [part for step in llm.trace.of(StepRecord) for part in step.scheduled]
    assert all(part.num_tokens == 1 + part.num_drafts for part in parts if part.kind == "decode")
    assert max(part.num_drafts for part in parts) == 4
    times = [(r.request_id, r.time) for r in llm.trace.of(TokenRecord)]
    assert len(set(times)) < len(times) / 2, "tokens of one step have one time"


def test_drafts_leave_room_for_one_more_token_and_never_pass_the_end_of_the_context():
    llm = tiny.llm(trace=True)
    llm.engine.proposer = Guess(lambda requests: [[3] * 50 for _ in requests])
    prompt = list(PROMPTS[3])
    [output] = llm.generate([prompt], SamplingParams(temperature=0, max_tokens=None, ignore_eos=True))
    assert len(output.outputs[0].token_ids) == tiny.CONTEXT - len(prompt)
    parts = [part for step in llm.trace.of(StepRecord) for part in step.scheduled]
    assert max(part.num_computed_tokens + part.num_tokens for part in parts) == tiny.CONTEXT - 1


def test_drafts_are_dropped_before_a_request_is_preempted_for_them():
    """Two prompts of a block and a half share five blocks: the drafts of the first take the last one."""
    llm = tiny.llm(num_gpu_blocks_override=5, block_size=8, trace=True, enable_prefix_caching=False)
    llm.engine.proposer = Guess(lambda requests: [[3] * 6 for _ in requests])
    for _ in range(2):
        llm.engine.add_request(PROMPTS[4], SamplingParams(temperature=0, max_tokens=20, ignore_eos=True))
    for _ in range(2):
        llm.engine.step()
    prefill, decode = llm.trace.of(StepRecord)
    assert prefill.num_tokens("prefill") == 24 and decode.preempted == []
    assert [part.num_drafts for part in decode.scheduled] == [6, 0]


def test_a_proposer_that_raises_ends_the_step_and_leaves_an_engine_that_works():
    llm = tiny.llm()
    llm.engine.proposer = Guess(lambda requests: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        llm.generate([list(PROMPTS[0])], params_of("greedy"))
    tiny.assert_idle(llm)
    llm.engine.proposer = None
    assert_equal(llm.generate([list(PROMPTS[0])], params_of("greedy")), undrafted("greedy")[0][:1])
