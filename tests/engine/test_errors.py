"""An error stays with the request that caused it, and one that concerns all leaves an engine that works.

Each source of failure is tried with three requests in flight: the middle one is the culprit.
"""

from contextlib import suppress

import pytest
import torch

import minillm
from minillm import LLM, RequestError, SamplingParams
from minillm.cache.blocks import BlockAllocator
from minillm.cache.prefix import PrefixCache
from minillm.engine.engine import Engine
from minillm.engine.scheduler import Scheduler
from minillm.measure.trace import RequestFinished
from minillm.model.tokenizer import Detokenizer, Tokenizer
from minillm.model.transformer import Transformer
from minillm.sampling import NonFiniteLogitsError, NoTokenLeftError, sample
from tests.engine import tiny
from tests.engine.tiny import PROMPTS

MOST = 8
PLAIN = SamplingParams(temperature=0, max_tokens=MOST, ignore_eos=True)


def greedy(i):
    """The tokens of prompt i as `PLAIN` gets them."""
    [output] = tiny.llm().generate(list(PROMPTS[i]), PLAIN)
    return output.outputs[0].token_ids


def run(engine: Engine) -> None:
    while engine.has_unfinished:
        engine.step()


def processor(act, after=2):
    """Params with a logits processor that acts once `after` tokens are out, and else leaves the logits alone."""

    def process(output, logits):
        return act(logits) if len(output) == after else logits

    return SamplingParams(temperature=0, max_tokens=MOST, ignore_eos=True, logits_processors=[process])


def fails(error):
    def act(logits):
        raise error

    return processor(act)


CULPRITS = {
    "its processor raises": (fails(ZeroDivisionError("mine")), "mine"),
    "its processor exits": (fails(SystemExit("no more")), "no more"),
    "its processor returns nothing": (processor(lambda logits: None), "processor"),
    "its processor returns a number": (processor(lambda logits: 3), "processor"),
    "its processor returns another shape": (processor(lambda logits: logits[:7]), "processor"),
    "its processor returns NaN": (processor(lambda logits: logits * torch.nan), ""),
    "its processor returns inf": (processor(lambda logits: logits + torch.inf), ""),
    "its processor leaves nothing": (processor(lambda logits: logits - torch.inf), "forbidden|forbid"),
    "it allows nothing": (
        SamplingParams(temperature=0, max_tokens=MOST, min_tokens=3, allowed_token_ids=[*tiny.EOS]),
        "min_tokens=3",
    ),
}


@pytest.mark.parametrize("kv_cache", ["paged", "contiguous"])
@pytest.mark.parametrize(("params", "message"), CULPRITS.values(), ids=CULPRITS.keys())
def test_a_request_that_fails_ends_alone(params, message, kv_cache):
    llm = tiny.llm(trace=True, kv_cache=kv_cache)
    first, culprit, last = (llm.engine.add_request(PROMPTS[i], params if i == 1 else PLAIN) for i in range(3))
    run(llm.engine)
    assert culprit.outputs[0].finish_reason == "error" and culprit.error is not None
    assert culprit.error is culprit.outputs[0].error
    assert [first.outputs[0].token_ids, last.outputs[0].token_ids] == [greedy(0), greedy(2)]
    assert {end.request_id: end.reason for end in llm.trace.of(RequestFinished)}["1"] == "error"
    tiny.assert_idle(llm)
    assert llm.engine._requests == {}
    with pytest.raises(RequestError, match=r"1 of 3 requests failed\. The first, '4'") as caught:
        llm.generate([list(PROMPTS[i]) for i in range(3)], [PLAIN, params, PLAIN])
    assert [o.outputs[0].finish_reason for o in caught.value.outputs] == ["length", "error", "length"]
    assert tiny.tokens(caught.value.outputs)[::2] == [[greedy(0)], [greedy(2)]]
    assert type(caught.value.__cause__) is type(culprit.error)


def test_a_sample_that_fails_leaves_the_other_samples_of_its_prompt():
    calls = []

    def process(output, logits):
        calls.append(len(output))
        if calls.count(2) == 2:  # the second sample to have two tokens
            raise ZeroDivisionError
        return logits

    llm = tiny.llm()
    params = SamplingParams(n=3, seed=1, max_tokens=4, ignore_eos=True, logits_processors=[process])
    output = llm.engine.add_request(PROMPTS[0], params)
    run(llm.engine)
    assert [sample.finish_reason for sample in output.outputs] == ["length", "error", "length"]
    tiny.assert_idle(llm)


@pytest.mark.parametrize("method", ["push", "finish"])
def test_text_that_cannot_be_made_ends_its_request_alone(method, monkeypatch):
    llm = tiny.llm()
    outputs = [llm.engine.add_request(PROMPTS[i], PLAIN) for i in range(3)]
    llm.engine.step()
    culprit = llm.engine.scheduler.running[1].detokenizer
    original = getattr(Detokenizer, method)

    def broken(self, *args):
        if self is culprit:
            raise ValueError("no such token")
        return original(self, *args)

    monkeypatch.setattr(Detokenizer, method, broken)
    run(llm.engine)
    assert [o.outputs[0].finish_reason for o in outputs] == ["length", "error", "length"]
    assert [outputs[i].outputs[0].token_ids for i in (0, 2)] == [greedy(0), greedy(2)]
    tiny.assert_idle(llm)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("budget", [2048, 6])
def test_a_prompt_on_which_no_report_can_be_made_ends_its_request_alone(n, budget, monkeypatch):
    llm = tiny.llm(max_num_batched_tokens=budget)
    params = SamplingParams(n=n, top_k=1, max_tokens=MOST, ignore_eos=True, prompt_logprobs=1)
    outputs = [llm.engine.add_request(PROMPTS[i], params if i == 2 else PLAIN) for i in (0, 2, 4)]
    monkeypatch.setattr(Tokenizer, "token_text", lambda *_: 1 / 0)
    run(llm.engine)
    assert [sample.finish_reason for sample in outputs[1].outputs] == ["error"] * n
    assert isinstance(outputs[1].error, ZeroDivisionError)
    assert [outputs[i].outputs[0].token_ids for i in (0, 2)] == [greedy(0), greedy(4)]
    tiny.assert_idle(llm)
    assert llm.engine._requests == {}


def test_what_a_failed_request_computed_is_not_found_by_others(monkeypatch):
    llm = tiny.llm(block_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(Transformer, "logits", lambda self, hidden: torch.full((len(hidden), 300), torch.nan))
        with pytest.raises(RequestError, match="1 of 1 requests failed"):
            llm.generate(list(PROMPTS[2]), PLAIN)
    assert len(llm.engine.memory.prefix) == 0
    assert tiny.tokens(llm.generate([list(PROMPTS[2])], PLAIN)) == [[greedy(2)]]


def test_an_abort_during_a_step_that_fails_is_carried_out():
    llm = tiny.llm()

    def act(logits):
        llm.engine.abort("1")
        raise KeyboardInterrupt

    outputs = [llm.engine.add_request(PROMPTS[i], processor(act) if i == 0 else PLAIN) for i in range(3)]
    with pytest.raises(KeyboardInterrupt):
        run(llm.engine)
    assert [output.outputs[0].finish_reason for output in outputs] == [None, "abort", None]
    llm.engine.abort("0")
    run(llm.engine)
    again = llm.engine.add_request(PROMPTS[1], PLAIN, request_id="1")
    run(llm.engine)
    assert again.outputs[0].token_ids == greedy(1) and outputs[2].outputs[0].token_ids == greedy(2)


def test_an_abort_ends_a_request_whose_text_cannot_be_made(monkeypatch):
    llm = tiny.llm()
    output = llm.engine.add_request(PROMPTS[0], PLAIN)
    llm.engine.step()
    monkeypatch.setattr(Detokenizer, "finish", lambda self: 1 / 0)
    llm.engine.abort(output.request_id)
    assert output.outputs[0].finish_reason == "error"
    tiny.assert_idle(llm)


def test_damaged_weights_are_an_error_not_a_token():
    llm = LLM(tiny.folder(), max_num_seqs=2)
    llm.model.weights.final_norm.weight.fill_(torch.nan)
    with pytest.raises(RequestError, match="2 of 2 requests failed") as caught:
        llm.generate([[3, 4], [5]])
    assert isinstance(caught.value.__cause__, NonFiniteLogitsError)
    tiny.assert_idle(llm)


def test_constraints_that_leave_no_token_are_named():
    llm = tiny.llm()
    params = SamplingParams(allowed_token_ids=[tiny.EOS[0]], min_tokens=2)
    with pytest.raises(RequestError, match=r"allowed_token_ids \(1 ids\) and min_tokens=2") as caught:
        llm.generate("x", params)
    assert isinstance(caught.value.__cause__, NoTokenLeftError)
    tiny.assert_idle(llm)


# ---- what concerns the whole step ----


def raises_at(function, at, error):
    """A function that raises at its call number `at`, and is `function` otherwise."""
    calls = [0]

    def wrapped(*args, **kwargs):
        calls[0] += 1
        if calls[0] == at:
            raise error
        return function(*args, **kwargs)

    return wrapped


def broken_class(base, method, at):
    return type(
        base.__name__, (base,), {method: raises_at(getattr(base, method), at, ZeroDivisionError(method))}
    )


PARTS = [
    *[
        ("allocator", BlockAllocator, method, at)
        for method in ("allocate", "share", "free")
        for at in (1, 4, 9)
    ],
    *[
        ("prefix_cache", PrefixCache, m, at)
        for m in ("extend", "match", "publish", "forget")
        for at in (1, 3)
    ],
    *[("scheduler", Scheduler, method, at) for method in ("schedule", "release", "fork") for at in (1, 2)],
    ("sample", sample, None, 2),
]


@pytest.mark.parametrize(
    ("part", "ours", "method", "at"), PARTS, ids=lambda x: getattr(x, "__name__", str(x))
)
def test_a_swapped_part_that_raises_leaves_an_engine_that_works(part, ours, method, at):
    broken = raises_at(ours, at, ZeroDivisionError()) if method is None else broken_class(ours, method, at)
    with minillm.swap(**{part: broken}):
        llm = tiny.llm(block_size=4, num_gpu_blocks_override=24, max_model_len=48)
    prompts = [list(PROMPTS[2])] * 2 + [list(PROMPTS[4])]
    params = SamplingParams(n=2, top_k=1, max_tokens=MOST, ignore_eos=True)
    expected = [[tokens] * 2 for tokens in (greedy(2), greedy(2), greedy(4))]
    for _ in range(4):
        with suppress(ZeroDivisionError):
            assert tiny.tokens(llm.generate(prompts, params)) == expected
        tiny.assert_idle(llm)
        tiny.assert_blocks_add_up(llm)
        assert llm.engine._requests == {}
    assert tiny.tokens(llm.generate(prompts, params)) == expected


@pytest.mark.parametrize("error", [ZeroDivisionError("in the model"), SystemExit(3)])
def test_an_error_of_the_model_ends_the_requests_of_its_step_and_no_others(error, monkeypatch):
    llm = tiny.llm(max_num_seqs=2)
    outputs = [llm.engine.add_request(PROMPTS[i], PLAIN) for i in range(3)]
    llm.engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(Transformer, "__call__", raises_at(None, 1, error))
        with pytest.raises(type(error)):
            llm.engine.step()
    assert [output.outputs[0].finish_reason for output in outputs] == ["error", "error", None]
    assert [output.error for output in outputs] == [error, error, None]
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1, 1, 0]
    run(llm.engine)
    assert outputs[2].outputs[0].token_ids == greedy(2)
    tiny.assert_idle(llm)


def test_ctrl_c_ends_no_request_in_the_engine():
    llm = tiny.llm(max_num_seqs=2)
    once = [KeyboardInterrupt()]

    def act(logits):
        if once:
            raise once.pop()
        return logits

    outputs = [llm.engine.add_request(PROMPTS[i], processor(act) if i == 0 else PLAIN) for i in range(3)]
    with pytest.raises(KeyboardInterrupt):
        run(llm.engine)
    assert [output.outputs[0].finish_reason for output in outputs] == [None] * 3
    assert llm.engine.memory.num_free == llm.engine.memory.num_blocks
    run(llm.engine)
    assert [output.outputs[0].token_ids for output in outputs] == [greedy(i) for i in range(3)]
    tiny.assert_idle(llm)
