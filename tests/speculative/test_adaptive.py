"""Adaptive speculation on a clock of its own: how many drafts it asks for, at which costs and which acceptance."""

import random
import statistics
from types import SimpleNamespace

import pytest

from minillm import LLM, RequestError, SamplingParams
from minillm.engine.proposer import Computed, Part
from minillm.engine.request import Status
from minillm.measure.trace import DraftChoice, Trace
from minillm.sampling import Drafts
from minillm.speculative.adaptive import Adaptive, Gains
from tests.engine import tiny
from tests.speculative import eagle_heads

MOST = 4


class World:
    """Requests that decode forever: what a step costs, and how many drafts are accepted, is given."""

    def __init__(self, step, draft, acceptance, num_requests=1, lengths=None, noise=0.0):
        self.step, self.draft, self.acceptance, self.lengths = step, draft, acceptance, lengths
        self.chance, self.noise, self.now, self.calls, self.asked = random.Random(0), noise, 0.0, 0, []
        self.num_speculative_tokens, self.taps, self.cache = MOST, None, None
        self.choices: list = []
        self.adaptive = Adaptive(self, lambda: self.now, self.choices.append)
        self.requests = [
            SimpleNamespace(num_tokens=8, num_drafted_tokens=0, status=Status.RUNNING)
            for _ in range(num_requests)
        ]
        self.drafts = [0] * num_requests

    def propose(self, computed):
        self.calls += 1
        most = max(part.limit for part in computed.parts)
        self.now += self.draft(len(computed.parts), most)
        length = MOST if self.lengths is None else self.lengths(self.chance)
        for part in computed.parts:
            part.request.num_drafted_tokens = part.request.num_tokens + part.limit
        return [Drafts([7] * min(part.limit, length)) for part in computed.parts]

    def run(self, num_steps, prompt_tokens=0, prompt_seconds=0.0):
        """Return the number of drafts that were asked for in each step."""
        asked = []
        for _ in range(num_steps):
            rows = len(self.requests) + sum(self.drafts)
            seconds = self.step(len(self.requests), rows) * (1 + self.noise * self.chance.expovariate(1))
            for request, drafts in zip(self.requests, self.drafts, strict=True):
                accepted = 0
                while accepted < drafts and self.chance.random() < self.acceptance:
                    accepted += 1
                request.num_tokens += 1 + accepted
            parts = [Part(request, 0, 0, MOST) for request in self.requests]
            num_requests = len(parts) + (prompt_tokens > 0)
            computed = Computed(parts, None, seconds + prompt_seconds, num_requests, rows + prompt_tokens)
            proposed = self.adaptive.propose(computed)
            self.drafts = [len(drafts.token_ids) for drafts in proposed]
            asked.append(self.adaptive._plan.limit)
        return asked


def flat(num_requests, rows):
    return 1.0 + 0.05 * rows


def dear(num_requests, rows):
    return 0.2 * rows


def cheap_draft(num_requests, num_drafts):
    return 0.1 * num_drafts


def seconds_per_token(world, asked):
    """Return the mean seconds of a step without noise per token that it brings."""
    num_requests, a = len(world.requests), world.acceptance
    seconds = sum(
        world.step(num_requests, num_requests * (1 + k)) + (world.draft(num_requests, k) if k else 0)
        for k in asked
    )
    return seconds / sum(sum(a**i for i in range(k + 1)) for k in asked)


@pytest.mark.parametrize("noise", [0.0, 0.4])
@pytest.mark.parametrize(
    ("step", "acceptance", "num_requests", "usual"),
    [
        (flat, 0.95, 1, {MOST}),
        (flat, 0.0, 1, {0}),
        (flat, 0.02, 8, {0}),
        (dear, 0.8, 1, {0}),  # each row costs as much as a step of its own
        (lambda r, rows: 1 + 0.2 * (rows - 1), 0.6, 1, {1, 2}),
        (lambda r, rows: 1 + 0.02 * max(0, rows - 40), 0.8, 8, {MOST}),
        (lambda r, rows: 1 + 0.02 * max(0, rows - 40), 0.4, 32, {0}),
    ],
)
def test_the_number_of_drafts_follows_from_the_costs(step, acceptance, num_requests, usual, noise):
    world = World(step, cheap_draft, acceptance, num_requests, noise=noise)
    world.run(60)
    asked = world.run(1000)
    best = min(seconds_per_token(world, [k]) for k in range(MOST + 1))
    assert seconds_per_token(world, asked) < (1.08 if noise else 1.04) * best
    assert noise or statistics.mode(asked) in usual
    assert {0} < set(asked), "it probes"


def test_probes_cost_little():
    world = World(dear, cheap_draft, 0.5, num_requests=4)
    world.run(60)
    start, calls = world.now, world.calls
    asked = world.run(2000)
    wasted = sum(dear(4, 4 * (1 + k)) - dear(4, 4) for k in asked) + world.now - start
    assert wasted < 0.05 * 2000 * dear(4, 4)
    assert world.calls - calls == sum(k > 0 for k in asked), "without drafts the draft model does not run"


def test_a_new_regime_is_followed():
    world = World(flat, cheap_draft, 0.9)
    world.run(100)
    for acceptance, step, usual in ((0.0, flat, 0), (0.95, flat, MOST), (0.95, dear, 0)):
        world.acceptance, world.step = acceptance, step
        world.run(800)
        asked = world.run(100)
        assert asked.count(0) > 80 if usual == 0 else statistics.mean(asked) > 2.5


def test_a_few_right_drafts_count_more_than_many_wrong_ones_of_long_ago():
    world = World(flat, cheap_draft, 0.0)
    assert world.run(1000)[-50:].count(0) > 40
    world.acceptance = 0.95
    world.run(50)
    assert statistics.mean(world.run(50)) > 3


@pytest.mark.parametrize(("acceptance", "usual"), [(0.9, MOST), (0.0, 0)])
def test_a_machine_that_is_slow_for_a_while_changes_nothing(acceptance, usual):
    """Its speed halves and doubles every 70 steps, for all steps alike."""
    world = World(flat, cheap_draft, acceptance)
    world.run(60)
    asked = []
    for round_ in range(12):
        factor = 1 + round_ % 2
        world.step = lambda r, rows, factor=factor: factor * flat(r, rows)
        asked += world.run(70)
    assert asked.count(0) > 0.7 * len(asked) if usual == 0 else statistics.mean(asked) > 3


def test_steps_with_a_prompt_teach_nothing():
    world = World(flat, cheap_draft, 0.9)
    world.run(60)
    before = world.adaptive.costs.of(1, [MOST])
    world.run(50, prompt_tokens=500, prompt_seconds=100.0)
    assert world.adaptive.costs.of(1, [MOST]) == before
    new = World(flat, cheap_draft, 0.9)
    assert new.run(50, prompt_tokens=500, prompt_seconds=100.0) == [MOST] * 50, "nothing is measured yet"
    assert new.adaptive.gains.judged == 0


def test_the_expected_tokens_follow_from_the_acceptance_and_the_lengths():
    """Half of the proposals have 4 drafts, of which two are accepted and one is rejected; the others have none."""
    gains = Gains(MOST)
    for _ in range(500):
        gains.add(2, 4, MOST)
        gains.add(0, 0, MOST)
    a = gains.acceptance
    assert a == pytest.approx(2 / 3, abs=0.01)
    tokens, num_drafts = gains.of(MOST)
    assert tokens == pytest.approx(1 + 0.5 * (a + a**2 + a**3 + a**4), abs=0.02)
    assert num_drafts == pytest.approx(2, abs=0.05)
    assert gains.of(1) == pytest.approx((1 + 0.5 * a, 0.5), abs=0.02)


def test_a_proposer_that_seldom_proposes_is_judged_by_what_it_proposes():
    """A draft for every tenth step: right, it is worth its rows; wrong, it is not."""
    for acceptance, asks in ((0.95, True), (0.0, False)):
        world = World(
            lambda r, rows: 1 + 0.5 * (rows > 1),
            lambda r, k: 0.02,
            acceptance,
            lengths=lambda chance: MOST * (chance.random() < 0.1),
        )
        world.run(300)
        asked = world.run(400)
        assert (asked.count(0) < 100) == asks


def test_a_proposer_that_reads_hidden_states_sees_every_step():
    world = World(dear, cheap_draft, 0.0)
    world.adaptive.taps = (1,)
    world.run(50)
    assert world.calls == 50


def test_a_cache_that_catches_up_is_not_measured():
    world = World(dear, cheap_draft, 0.0)
    world.adaptive.cache = world.adaptive  # any cache
    world.requests[0].num_drafted_tokens, world.requests[0].num_tokens = 0, 500
    world.run(1)
    assert not world.adaptive._plan.measured
    world.run(1)
    assert world.adaptive._plan.measured


def test_what_a_probe_lost_delays_the_next_one():
    """A proposer that has to catch up needs 20 steps' time for the first draft after a pause."""
    world = World(dear, cheap_draft, 0.0)
    world.run(300)
    last = [0]

    def catching_up(num_requests, num_drafts):
        paused, last[0] = world.adaptive.steps - last[0] > 1, world.adaptive.steps
        return 20 * dear(1, 1) * paused + 0.02

    world.adaptive.steps = 0
    choose = world.adaptive._choose

    def counted(num_requests):
        world.adaptive.steps += 1
        return choose(num_requests)

    world.adaptive._choose, world.draft = counted, catching_up
    start = world.now
    asked = world.run(6000)
    assert 0 < world.now - start < 0.02 * 6000 * dear(1, 1)
    assert asked.count(0) > 5900


def test_each_choice_is_reported_with_its_reason():
    world = World(flat, cheap_draft, 0.95)
    world.run(200)
    first, *_, last = world.choices
    assert (first.num_drafts, first.seconds_without, first.seconds_with) == (MOST, None, None)
    assert last.acceptance > 0.85
    assert last.seconds_without == pytest.approx(1.05, rel=0.05)
    assert last.seconds_with == pytest.approx((1.25 + 0.4) / 4.5, rel=0.1)
    assert all(a.num_drafts != b.num_drafts for a, b in zip(world.choices, world.choices[1:], strict=False))


@pytest.mark.parametrize("method", ["ngram", "suffix", "draft_model", "eagle3"])
def test_the_tokens_are_those_without_speculation(method, tmp_path):
    config = {"method": method, "adaptive": True}
    if method == "draft_model":
        config["model"] = str(tiny.folder())
    if method == "eagle3":
        config["model"] = str(eagle_heads.for_tiny(tmp_path / "head"))
    prompts = [list(prompt) for prompt in tiny.PROMPTS]
    params = [
        SamplingParams(temperature=t, seed=1, max_tokens=24 - i, ignore_eos=True)
        for i, t in enumerate((0, 1, 0, 1, 0.5, 0))
    ]
    wanted = tiny.tokens(tiny.llm().generate(prompts, params))
    llm = tiny.llm(trace=True, speculative_config=config)
    for _ in range(3):
        assert tiny.tokens(llm.generate(prompts, params)) == wanted
        tiny.assert_idle(llm)
    choices = llm.trace.of(DraftChoice)
    assert {choice.num_drafts for choice in choices} >= {0, MOST}
    llm.trace.save(tmp_path / "trace.jsonl")
    assert Trace.load(tmp_path / "trace.jsonl").of(DraftChoice) == choices
    assert not any(isinstance(record, DraftChoice) for record in llm.trace.for_request("0"))


def test_prefixes_are_found_though_the_draft_model_did_not_run():
    """A hit on such blocks lets the draft model compute them again; once it has, they are like all others."""
    config = {"method": "draft_model", "model": str(tiny.folder()), "adaptive": True}
    llm = tiny.llm(block_size=4, speculative_config=config)
    adaptive, memory = llm.engine.proposer, llm.engine.memory
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    prompt = list(tiny.PROMPTS[2])
    wanted = tiny.tokens(tiny.llm().generate([prompt], params))
    # Of 8 full blocks, the next request hits the 5 of the prompt. It makes its own of the other 3.
    for drafts, undrafted in ((0, 8), (MOST, 3), (MOST, 3)):
        adaptive.costs.missing = lambda num_requests, drafts=drafts: "with" if drafts else "without"
        [output] = llm.generate([prompt], params)
        assert tiny.tokens([output]) == wanted
        assert len(memory.undrafted) == undrafted
        accepted = output.metrics.num_accepted_tokens
        assert accepted == output.metrics.num_draft_tokens, "its draft is the model itself"
        assert (accepted > 0) == (drafts > 0)
    assert output.num_cached_tokens == 20
    adaptive.costs.missing = lambda num_requests: "without"
    llm.generate([list(p) for p in tiny.PROMPTS] * 3, params)
    memory.reset()
    assert memory.undrafted == set()


def test_a_seed_with_sampled_drafts_is_refused():
    config = {"method": "draft_model", "model": str(tiny.folder()), "draft_sample_method": "probabilistic"}
    for adaptive in (False, True):
        with LLM(tiny.folder(), speculative_config=config | {"adaptive": adaptive}) as llm:
            assert llm.generate([[7, 8]], SamplingParams(max_tokens=2))[0].finished
            if adaptive:
                with pytest.raises(RequestError, match=r"seed=3 cannot fix a text .*adaptive=True"):
                    llm.generate([[7, 8]], SamplingParams(max_tokens=2, seed=3))
            else:
                assert llm.generate([[7, 8]], SamplingParams(max_tokens=2, seed=3))[0].error is None
