"""The engine's promises: every request ends, memory comes back, an error harms no more than its step."""

import itertools
import shutil
import time

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from minillm import LLM, RequestError, SamplingParams
from minillm.engine.engine import Engine
from minillm.measure.trace import RequestAdded, RequestFinished, StepRecord, TokenRecord, ttft
from tests.engine import tiny
from tests.engine.tiny import PROMPTS

MOST = 8


def run(engine: Engine) -> None:
    while engine.has_unfinished:
        engine.step()


class Life(RuleBasedStateMachine):
    """Arrivals, steps and aborts in any order, with few blocks and a small budget.

    Each request gets the tokens that `transformers` generates, even if it shares, loses or reuses blocks.
    """

    @initialize(
        seqs=st.integers(1, 3),
        budget=st.integers(1, 12),
        kv_cache=st.sampled_from(["paged", "paged", "paged", "contiguous", "virtual", "none"]),
        block_size=st.sampled_from([1, 3, 8]),
        spare=st.integers(0, 40),
        prefix=st.booleans(),
        policy=st.sampled_from(["fcfs", "fcfs", "priority", "static"]),
    )
    def begin(self, seqs, budget, kv_cache, block_size, spare, prefix, policy):
        self.budget = budget if kv_cache != "none" and policy != "static" else 99 * tiny.CONTEXT
        blocks = -(-(max(map(len, PROMPTS)) + MOST + spare) // block_size) if kv_cache == "paged" else None
        if kv_cache == "virtual":
            blocks = 1 + spare % 3  # pages of 64 tokens or more
        self.llm = tiny.llm(
            max_num_seqs=seqs,
            max_num_batched_tokens=budget,
            kv_cache=kv_cache,
            block_size=block_size,
            num_gpu_blocks_override=blocks,
            enable_prefix_caching=prefix,
            scheduling_policy=policy,
            trace=True,
        )
        self.engine = self.llm.engine
        self.outputs, self.aborted = [], set()

    @rule(
        which=st.integers(0, len(PROMPTS) - 1),
        n=st.integers(1, 3),
        max_tokens=st.integers(1, MOST),
        priority=st.integers(0, 1),
    )
    def add(self, which, n, max_tokens, priority):
        params = SamplingParams(n=n, top_k=1, max_tokens=max_tokens)  # greedy takes no n
        output = self.engine.add_request(PROMPTS[which], params, priority=priority)
        self.outputs.append((output, tiny.greedy(PROMPTS[which], MOST)[:max_tokens]))

    @rule()
    def step(self):
        unfinished = self.engine.has_unfinished
        self.llm.trace.clear()
        grown = self.engine.step()
        steps = self.llm.trace.of(StepRecord)
        assert len(steps) == unfinished, "a step with something to do does it"
        assert all(0 < step.num_tokens() <= self.budget for step in steps)
        assert all(any(output is known for known, _ in self.outputs) for output in grown)

    @rule(number=st.integers(0, 20))
    def abort(self, number):
        """Also what is finished, aborted before or was never there."""
        if number < len(self.outputs) and not self.outputs[number][0].finished:
            self.aborted.add(number)
        self.engine.abort(str(number))

    @invariant()
    def every_block_is_held_by_its_tables_or_free(self):
        if self.llm.config.kv_cache == "virtual":
            tiny.assert_pages_add_up(self.llm)
        else:
            tiny.assert_blocks_add_up(self.llm)
        assert self.engine.memory.copies == []
        for request in [*self.engine.scheduler.running, *self.engine.scheduler.waiting]:
            assert request.num_computed_tokens < request.num_tokens <= tiny.CONTEXT
            assert not request.result.finished or self.llm.config.scheduling_policy == "static"

    @invariant()
    def every_output_is_the_references_as_far_as_it_goes(self):
        for number, (output, expected) in enumerate(self.outputs):
            for sample in output.outputs:
                assert sample.token_ids == expected[: len(sample.token_ids)]
                ended = sample.finish_reason in ("stop", "length")
                assert (
                    (sample.token_ids == expected) if ended else number in self.aborted or not output.finished
                )

    def teardown(self):
        if not hasattr(self, "llm"):
            return
        while self.engine.has_unfinished:  # ends: every step makes progress
            self.step()
        tiny.assert_idle(self.llm)
        assert self.engine._requests == {}
        assert all(output.finished for output, _ in self.outputs)
        self.every_output_is_the_references_as_far_as_it_goes()
        for output, _ in self.outputs:
            assert output.metrics.queued_ts <= output.metrics.last_token_ts or self.aborted


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=25)


class TestLongLife(Life.TestCase):
    pytestmark = pytest.mark.slow
    settings = settings(max_examples=110, stateful_step_count=50)  # 5,500 steps and more


# ---- ends ----


def test_max_tokens_stops_at_the_end_of_the_context():
    prompt = list(PROMPTS[3])
    room = tiny.CONTEXT - len(prompt)
    for max_tokens in (None, 10_000, room):
        params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
        [output] = tiny.llm().generate(prompt, params)
        assert len(output.outputs[0].token_ids) == room and output.outputs[0].finish_reason == "length"
    longest = [3] * (tiny.CONTEXT - 1)
    [output] = tiny.llm().generate(longest, SamplingParams(max_tokens=5))
    assert len(output.outputs[0].token_ids) == 1 and output.outputs[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("ends", "reason"),
    [({}, tiny.EOS[1]), ({"stop_token_ids": [44]}, 44), ({"stop": ["no"]}, "no")],
    ids=["end token", "stop token", "stop string"],
)
def test_min_tokens_keeps_each_kind_of_end_away(ends, reason):
    wanted = (reason,) * 9
    [output] = tiny.llm().generate("x", tiny.says(*wanted, min_tokens=4, **ends))
    [sample] = output.outputs
    assert (sample.finish_reason, sample.stop_reason) == ("stop", reason)
    assert 5 <= len(sample.token_ids) <= 5 + len(tiny.ids_of("no"))


@pytest.mark.parametrize("eos", tiny.EOS)
def test_the_end_tokens_are_those_of_generation_config(eos):
    [output] = tiny.llm().generate("x", tiny.says("hello", eos))
    [sample] = output.outputs
    named = None if eos == tiny.EOS[0] else eos  # the tokenizer's own is not
    assert (sample.text, sample.finish_reason, sample.stop_reason) == ("hello", "stop", named)
    [output] = tiny.llm().generate("x", tiny.says("hello", eos, ignore_eos=True, max_tokens=20))
    assert output.outputs[0].finish_reason == "length" and len(output.outputs[0].token_ids) == 20


def test_the_end_token_of_the_tokenizer_is_added_to_those_of_the_model(tmp_path):
    shutil.copytree(tiny.folder(), tmp_path, dirs_exist_ok=True)
    tiny.save_tokenizer(tmp_path, eos_token=tiny.USER)
    with LLM(tmp_path) as llm:
        own = llm.tokenizer.eos_token_id
        assert llm.engine.eos_token_ids == (own, *tiny.EOS)
        assert own not in tiny.EOS
        [output] = llm.generate("x", tiny.says("hello", own, "more"))
        assert (output.outputs[0].text, output.outputs[0].finish_reason) == ("hello", "stop")
        [output] = llm.generate("x", tiny.says("hello", own, ignore_eos=True, max_tokens=20))
        assert output.outputs[0].finish_reason == "length"
        [output] = llm.generate("x", tiny.says(own, own, own, min_tokens=2, max_tokens=20))
        assert own not in output.outputs[0].token_ids[:2]


@pytest.mark.parametrize("spelling", [["a the"], ["a", " ", "t", "h", "e"], ["a\n", "th", "e"]])
def test_a_bad_word_comes_by_no_spelling(spelling):
    [output] = tiny.llm().generate("x", tiny.says(*spelling, bad_words=["the"], ignore_eos=True))
    text = output.outputs[0].text
    assert text.startswith("a") and "the" not in text and len(output.outputs[0].token_ids) == 40


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor], ids=["int64", "uint8", "tensor"])
def test_integers_of_any_kind_are_token_ids(kind):
    params = SamplingParams(temperature=0, max_tokens=3)
    [given], [expected] = (tiny.llm().generate(prompt, params) for prompt in ([kind(7), kind(9)], [7, 9]))
    assert given.prompt_token_ids == [7, 9] and all(type(i) is int for i in given.prompt_token_ids)
    assert given.outputs[0].token_ids == expected.outputs[0].token_ids


@pytest.mark.parametrize("wrong", [True, np.True_, 3.0, "3", None, torch.tensor([1, 2])])
def test_what_is_no_integer_is_no_token_id(wrong):
    with pytest.raises(RequestError, match=r"prompt_token_ids\[1\] is .*integers from 0 to"):
        tiny.llm().generate([3, wrong], SamplingParams(max_tokens=1))


def test_samples_of_one_prompt_end_each_on_its_own():
    [output] = tiny.llm().generate(list(PROMPTS[0]), SamplingParams(n=8, temperature=2.0, max_tokens=90))
    lengths = {len(sample.token_ids) for sample in output.outputs}
    assert len(lengths) > 1 and output.finished


# ---- aborts and errors ----


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_an_abort_keeps_what_there_is_and_gives_the_row_back(steps):
    llm = tiny.llm(max_num_seqs=1, max_num_batched_tokens=3)
    prompt, other = PROMPTS[0], PROMPTS[5]
    output = llm.engine.add_request(prompt, SamplingParams(n=2, top_k=1, max_tokens=9), request_id="a")
    last = llm.engine.add_request(other, SamplingParams(temperature=0, max_tokens=MOST))
    for _ in range(steps):
        llm.engine.step()
    for _ in range(2):
        llm.engine.abort("a")
    assert [sample.finish_reason for sample in output.outputs] == ["abort", "abort"]
    assert output.outputs[0].token_ids == tiny.greedy(prompt, MOST)[: max(0, steps - 1)]
    run(llm.engine)
    assert last.outputs[0].token_ids == tiny.greedy(other, MOST)
    tiny.assert_idle(llm)


def calls(function, after=2):
    """A logits processor that calls `function` once `after` tokens are out, and leaves the logits alone."""

    def processor(output, logits):
        if len(output) == after:
            function()
        return logits

    return SamplingParams(temperature=0, max_tokens=MOST, logits_processors=[processor])


def test_an_abort_during_the_step_takes_effect_at_its_end():
    llm = tiny.llm(trace=True)
    own = llm.engine.add_request(PROMPTS[0], calls(lambda: llm.engine.abort("0")))
    other = llm.engine.add_request(PROMPTS[1], SamplingParams(temperature=0, max_tokens=MOST))
    run(llm.engine)
    assert len(own.outputs[0].token_ids) == 3 and own.outputs[0].finish_reason == "abort"
    assert other.outputs[0].token_ids == tiny.greedy(PROMPTS[1], MOST)
    assert [end.reason for end in llm.trace.of(RequestFinished) if end.request_id == "0"] == ["abort"]
    tiny.assert_idle(llm)


def test_a_step_within_a_step_is_refused():
    llm = tiny.llm()
    own = llm.engine.add_request(PROMPTS[0], calls(llm.engine.step))
    other = llm.engine.add_request(PROMPTS[1], SamplingParams(temperature=0, max_tokens=MOST))
    run(llm.engine)
    assert own.outputs[0].finish_reason == "error" and "a step is under way" in str(own.error)
    assert other.outputs[0].token_ids == tiny.greedy(PROMPTS[1], MOST)
    tiny.assert_idle(llm)


# ---- extremes ----


def test_a_pool_of_one_block_serves_one_after_the_other():
    llm = tiny.llm(num_gpu_blocks_override=1, block_size=16)
    outputs = llm.generate(
        [list(PROMPTS[i]) for i in (0, 1, 5)] * 2, SamplingParams(temperature=0, max_tokens=12)
    )
    assert tiny.tokens(outputs) == [[tiny.greedy(PROMPTS[i], 12)] for i in (0, 1, 5)] * 2
    tiny.assert_idle(llm)


@pytest.mark.parametrize("kv_cache", ["paged", "contiguous"])
@pytest.mark.slow
def test_a_thousand_requests_at_once_with_a_budget_of_one_token(kv_cache):
    llm = tiny.llm(max_num_batched_tokens=1, max_num_seqs=4, kv_cache=kv_cache)
    params = SamplingParams(temperature=0, max_tokens=1, detokenize=False)
    outputs = llm.generate([[3 + i % 7] for i in range(1000)], params)
    assert tiny.tokens(outputs) == [[tiny.greedy((3 + i % 7,), 1)] for i in range(1000)]
    tiny.assert_idle(llm)


def test_the_shortest_and_the_longest_prompts_together():
    longest = [tuple((k * 7 + i) % 250 + 3 for i in range(tiny.CONTEXT - 1)) for k in range(3)]
    prompts = [PROMPTS[1], longest[0], PROMPTS[1], *longest]
    llm = tiny.llm(max_num_batched_tokens=10, num_gpu_blocks_override=7)
    outputs = llm.generate(
        [list(prompt) for prompt in prompts], SamplingParams(temperature=0, max_tokens=MOST)
    )
    assert tiny.tokens(outputs) == [
        [tiny.greedy(prompt, min(MOST, tiny.CONTEXT - len(prompt)))] for prompt in prompts
    ]
    tiny.assert_idle(llm)


def test_what_the_whole_cache_could_not_hold_is_refused_at_once():
    llm = tiny.llm(num_gpu_blocks_override=2, block_size=8)
    message = (
        r"10 prompt tokens and max_tokens=8 need room for 17 tokens.*2 blocks of 8 = 16: lower max_tokens"
    )
    with pytest.raises(RequestError, match=message):
        llm.engine.add_request([3] * 10, SamplingParams(max_tokens=8))
    with pytest.raises(RequestError, match="need room for 95 tokens"):
        llm.engine.add_request([3] * 10, SamplingParams(max_tokens=None))
    tiny.assert_idle(llm)
    [output] = llm.generate([3] * 10, SamplingParams(max_tokens=7, ignore_eos=True))
    assert len(output.outputs[0].token_ids) == 7


def test_urgent_requests_come_first_and_the_rest_by_arrival():
    llm = tiny.llm(max_num_seqs=1, scheduling_policy="priority")
    prompts = [list(PROMPTS[i]) for i in (0, 1, 5)]
    outputs = llm.generate(prompts, SamplingParams(max_tokens=2, ignore_eos=True), priority=[1, 1, 0])
    finished = [output.metrics.last_token_ts for output in outputs]
    assert finished[2] < finished[0] < finished[1]


@pytest.mark.parametrize(
    ("policy", "priority", "error", "message"),
    [
        ("fcfs", [1], ValueError, "scheduling_policy is 'fcfs', which knows none"),
        ("priority", [1, 2], ValueError, "1 prompts but 2 priorities"),
        ("priority", ["a"], TypeError, "priority='a' is a str: give an integer"),
    ],
)
def test_priorities_that_cannot_be_are_refused(policy, priority, error, message):
    llm = tiny.llm(scheduling_policy=policy)
    with pytest.raises(error, match=message):
        llm.generate([[3]], priority=priority)
    tiny.assert_idle(llm)


# ---- what is refused, and names ----

REFUSED = {
    "nothing": ([], {}, "empty: give at least one token"),
    "beyond the vocabulary": (
        [3, 300],
        {},
        r"prompt_token_ids\[1\] is 300: token ids are integers from 0 to 299",
    ),
    "negative": ([-1], {}, r"prompt_token_ids\[0\] is -1"),
    "bool": ([3, True], {}, r"prompt_token_ids\[1\] is True"),
    "float": ([3, 4.0], {}, r"prompt_token_ids\[1\] is 4\.0"),
    "str": ([3, "a"], {}, r"prompt_token_ids\[1\] is 'a'"),
    "too long": ([3] * 96, {}, "has 96 tokens and max_model_len is 96.*Shorten it to 95"),
    "allowed beyond": ([3], {"allowed_token_ids": [300]}, r"allowed_token_ids.*\[300\].*ends at 299"),
}


@pytest.mark.parametrize(("ids", "params", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_never_be_served_is_refused_when_it_is_added(ids, params, message):
    llm = tiny.llm(trace=True)
    with pytest.raises(ValueError, match=message):
        llm.engine.add_request(ids, SamplingParams(**params))
    tiny.assert_idle(llm)
    assert llm.trace == []


def test_a_refused_request_does_not_move_the_seeds_of_those_that_follow():
    params = SamplingParams(max_tokens=MOST, ignore_eos=True)
    llm = tiny.llm()
    with pytest.raises(RequestError):
        llm.engine.add_request([], params)
    assert tiny.tokens(llm.generate([[3]], params)) == tiny.tokens(tiny.llm().generate([[3]], params))


def test_a_name_is_in_use_until_its_request_ends():
    engine = tiny.llm().engine
    engine.add_request([3], SamplingParams(max_tokens=1), request_id="1")
    with pytest.raises(RequestError, match=r"'1' is in use.*choose another"):
        engine.add_request([3], SamplingParams(), request_id="1")
    assert engine.add_request([3], SamplingParams(max_tokens=1)).request_id == "2", "a name that is free"
    run(engine)
    assert engine.add_request([3], SamplingParams(), request_id="1").request_id == "1"


# ---- a vocabulary that is padded ----


def test_padding_of_the_vocabulary_is_never_sampled(tmp_path):
    for file in tiny.folder().iterdir():
        (tmp_path / file.name).symlink_to(file)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    tiny.save_tokenizer(tmp_path, vocab_size=262)
    llm = LLM(tmp_path, max_num_seqs=2)
    [output] = llm.generate("x", SamplingParams(n=2, temperature=2.0, max_tokens=90, ignore_eos=True))
    assert all(max(sample.token_ids) < 262 for sample in output.outputs)
    with pytest.raises(ValueError, match=r"allowed_token_ids.*\[262\].*ends at 261"):
        llm.generate("x", SamplingParams(allowed_token_ids=[262]))


# ---- the record of it ----


def test_the_trace_adds_up():
    llm = tiny.llm(max_num_batched_tokens=7, max_num_seqs=2, trace=True)
    prompts = [list(PROMPTS[i]) for i in (2, 0, 4)]
    outputs = llm.generate(prompts, SamplingParams(n=2, seed=1, max_tokens=5, ignore_eos=True))
    samples = {f"{i}.{s.index}": (o, s) for i, o in enumerate(outputs) for s in o.outputs}
    steps, trace = llm.trace.of(StepRecord), llm.trace
    assert [step.step for step in steps] == list(range(len(steps)))
    assert {record.request_id for record in trace.of(RequestAdded)} == set(samples)
    assert {record.request_id: record.reason for record in trace.of(RequestFinished)} == dict.fromkeys(
        samples, "length"
    )
    for name, (output, sample) in samples.items():
        parts = [part for step in steps for part in step.scheduled if part.request_id == name]
        prefill = sum(part.num_tokens for part in parts if part.kind == "prefill")
        computed = parts[0].num_computed_tokens
        assert computed in (parts[0].num_cached_tokens, len(output.prompt_token_ids)), "a hit, or a fork"
        assert computed == 0 or name.endswith(".1")
        assert computed + prefill == len(output.prompt_token_ids)
        assert [part.num_tokens for part in parts if part.kind == "decode"] == [1] * 4
        assert not any(part.num_cached_tokens for part in parts[1:])
        for part in parts:
            assert part.num_computed_tokens == computed
            computed += part.num_tokens
            assert len(part.blocks) == -(-computed // 16) or part.kind == "prefill"
        told = [record for record in trace.of(TokenRecord) if record.request_id == name]
        assert [record.token_id for record in told] == sample.token_ids
        assert [record.index for record in told] == list(range(5))
        assert all(any(s.start <= record.time <= s.end for s in steps) for record in told)
        assert ttft(trace)[name] > 0
    for step in steps:
        phases = step.phases
        took = phases.schedule + phases.forward + phases.sample + phases.commit
        assert min(phases.schedule, phases.forward, phases.sample, phases.commit) >= 0
        assert took == pytest.approx(step.end - step.start, abs=1e-6)
    assert (steps[0].num_running, steps[0].num_waiting) == (1, 2), (
        "samples begin when their prompt is computed"
    )
    assert all(len(step.scheduled) <= step.num_running <= 2 for step in steps)
    blocks = llm.engine.memory.num_blocks
    for step in steps:
        held = {block for part in step.scheduled for block in part.blocks}
        assert step.blocks.total == blocks and step.blocks.cached <= step.blocks.free <= blocks - len(held)
    published = [block for step in steps for block in step.published]
    assert len(published) == len(set(published)) > 0, "none is taken from the first round's blocks"
    assert any(step.copied for step in steps)
    assert all(a.end <= b.start for a, b in itertools.pairwise(steps))


def test_what_is_computed_again_is_prefill_and_one_token_a_step_is_decode():
    llm = tiny.llm(num_gpu_blocks_override=8, block_size=8, max_num_batched_tokens=3, trace=True)
    prompts = [list(PROMPTS[i]) for i in (0, 4, 5, 1)]
    llm.generate(prompts, SamplingParams(temperature=0, max_tokens=20, ignore_eos=True))
    steps, again = llm.trace.of(StepRecord), 0
    assert any(step.preempted for step in steps)
    for i, prompt in enumerate(prompts):
        reached = 0
        for part in (part for step in steps for part in step.scheduled if part.request_id == str(i)):
            end = part.num_computed_tokens + part.num_tokens
            if part.kind == "decode":
                assert part.num_tokens == 1 and end > max(reached, len(prompt))
            again += part.kind == "prefill" and part.num_computed_tokens >= len(prompt)
            reached = max(reached, end)
    assert again, "outputs that were computed again are among them"


def test_without_a_cache_every_step_computes_all_again():
    llm = tiny.llm(kv_cache="none", trace=True)
    llm.generate([3, 4, 5], SamplingParams(max_tokens=3, ignore_eos=True))
    parts = [part for step in llm.trace.of(StepRecord) for part in step.scheduled]
    assert [(part.kind, part.num_computed_tokens, part.num_tokens) for part in parts] == [
        ("prefill", 0, n) for n in (3, 4, 5)
    ]


def test_metrics_are_in_order():
    llm = tiny.llm(max_num_seqs=1)
    for output in llm.generate([list(prompt) for prompt in PROMPTS[:3]], SamplingParams(max_tokens=3)):
        metrics = output.metrics
        assert 0 < metrics.queued_ts <= metrics.scheduled_ts < metrics.first_token_ts <= metrics.last_token_ts
        assert metrics.num_generation_tokens == len(output.outputs[0].token_ids)
        assert abs(metrics.arrival_time - time.time()) < 60
