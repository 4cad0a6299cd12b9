"""5,200 random steps with drafts: after each one, every block is free or held, and at the end all are free."""

import random

import pytest

from minillm import SamplingParams
from minillm.engine.request import Status
from tests.engine import tiny
from tests.engine.tiny import Guess
from tests.speculative import pairs

CHANGES = [
    {"num_gpu_blocks_override": 7, "block_size": 4},
    {"num_gpu_blocks_override": 15, "block_size": 2, "max_num_batched_tokens": 5},
    {"num_gpu_blocks_override": 30, "block_size": 1, "enable_prefix_caching": False},
    {"num_gpu_blocks_override": 9, "block_size": 4, "scheduling_policy": "static"},
    {"num_gpu_blocks_override": 10, "block_size": 3, "scheduling_policy": "priority", "max_num_seqs": 3},
]


def random_params(luck):
    n = luck.choice([1, 1, 1, 2, 3])
    return SamplingParams(
        n=n,
        temperature=luck.choice([0.2, 1.0]) if n > 1 else luck.choice([0, 1.0]),
        seed=luck.randrange(2**20),
        max_tokens=luck.randrange(1, 12),
        allowed_token_ids=luck.choice([None, [7, 8, 9]]),
        stop_token_ids=luck.choice([[], [8]]),
        detokenize=luck.random() < 0.3,
    )


def guesses(luck):
    """Propose a random number of tokens, right ones among them where few are allowed; sometimes fail."""

    def propose(requests):
        if luck.random() < 0.01:
            raise ZeroDivisionError
        return [luck.choices((7, 8, 9), k=luck.randrange(9)) for _ in requests]

    return Guess(propose)


def live(llm, luck, num_steps):
    """Add, abort and interrupt requests at random, and check the blocks after each step."""
    engine, known, steps, counts = llm.engine, [], 0, {"abort": 0, "error": 0, "preempted": 0}
    stems = [luck.choices(range(3, 20), k=12) for _ in range(2)]
    while steps < num_steps:
        while len(known) < 60 and luck.random() < 0.35:
            prompt = luck.choice(stems)[: luck.randrange(1, 13)] + luck.choices(
                range(3, 20), k=luck.randrange(4)
            )
            known.append(engine.add_request(prompt, random_params(luck), priority=luck.randrange(3)))
        if known and luck.random() < 0.08:
            engine.abort(luck.choice(known).request_id)
            counts["abort"] += 1
        try:
            engine.step()
        except ZeroDivisionError:
            counts["error"] += 1
        counts["preempted"] += len(engine.scheduler.preempted)
        steps += 1
        tiny.assert_blocks_add_up(llm)
        for request in engine.scheduler.running:
            if request.status is Status.RUNNING:
                assert len(request.block_table) <= engine.memory.blocks_for(request.max_cached_tokens)
                assert not request.drafts or request.num_wanted <= request.max_cached_tokens
                assert request.num_computed_tokens <= request.num_tokens - 1
        known = [output for output in known if not output.finished]
    while engine.has_unfinished:
        try:
            engine.step()
        except ZeroDivisionError:
            counts["error"] += 1
    tiny.assert_idle(llm)
    assert engine._requests == {}
    return counts


@pytest.mark.parametrize("changes", range(len(CHANGES)))
@pytest.mark.parametrize(
    ("proposer", "num_steps"),
    [
        pytest.param("guesses", 800, marks=pytest.mark.slow),
        pytest.param("draft model", 100, marks=pytest.mark.slow),
        pytest.param("sampled drafts", 100, marks=pytest.mark.slow),
        ("any", 40),
    ],
)
def test_no_block_is_lost(changes, proposer, num_steps):
    luck = random.Random(f"{changes} {proposer}")
    if proposer == "any":
        proposer = ["guesses", "draft model", "sampled drafts", "suffix", "ngram"][changes]
    if proposer == "guesses":
        llm = tiny.llm(**CHANGES[changes])
        llm.engine.proposer = guesses(luck)
    elif proposer in pairs.configs():
        llm = pairs.llm(proposer, **CHANGES[changes])
    else:
        config = pairs.draft(0.03, draft_sample_method="probabilistic")
        llm = tiny.llm(speculative_config=config, **CHANGES[changes])
    counts = live(llm, luck, num_steps)
    if num_steps > 500:
        assert all(counts.values()), counts
