"""A verifier from a reader's two functions decides as the package's does, and shows a reader's mistake."""

from typing import Any

import pytest
import torch

import minillm
from minillm import LLM
from minillm.course.holes.ch10 import accept, residual
from minillm.course.speculation import Run, compare, verifier
from minillm.sampling import Drafts, SamplingParams, SamplingRow, verify


def step(temperature: float, certain: bool, seed: int) -> tuple[Any, ...]:
    """Return logits, rows and drafts of three requests with 0, 1 and 4 drafts, and their random distributions."""
    rng = torch.Generator().manual_seed(seed)
    rows, drafts, params = [], [], SamplingParams(temperature=temperature, logprobs=1)
    for number, k in enumerate((0, 1, 4)):
        ids = torch.randint(12, (k,), generator=rng).tolist()
        q = torch.randn(k, 12, generator=rng).softmax(-1)
        row = SamplingRow(params, 50 * seed + number, [1, 2], [])
        rows += [row, *(row.after(ids[:i]) for i in range(1, k + 1))]
        drafts.append(Drafts(ids, q if k and not certain else None))
    return torch.randn(len(rows), 12, generator=rng), rows, drafts


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("certain", [False, True])
def test_it_decides_as_the_package(temperature: float, certain: bool) -> None:
    mine = verifier(accept, residual)
    for seed in range(60):
        given = step(temperature, certain, seed)
        wanted = verify(*given)
        got = mine(*given)
        assert got.token_ids == wanted.token_ids and got.logprobs == wanted.logprobs


@pytest.mark.parametrize(
    "wrong",
    [
        (lambda p, q, x, u: True, residual),
        (lambda p, q, x, u: u < p[x], residual),
        (accept, lambda p, q: p),
    ],
)
def test_a_wrong_function_decides_otherwise(wrong: Any) -> None:
    mine = verifier(*wrong)
    steps = [step(1.0, False, seed) for seed in range(60)]
    assert any(mine(*given).token_ids != verify(*given).token_ids for given in steps)


def test_a_row_that_cannot_be_sampled_is_reported() -> None:
    logits, rows, drafts = step(1.0, False, 0)
    logits[0] = float("nan")
    assert list(verifier(accept, residual)(logits, rows, drafts).errors) == [0]


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM("tinytales", dtype="float32", device="cpu", max_model_len=64, max_num_seqs=4)


PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13]]
GREEDY = SamplingParams(max_tokens=11, temperature=0, ignore_eos=True)


@pytest.mark.parametrize("together", [False, True])
def test_drafts_that_are_all_right_are_counted(llm: LLM, together: bool) -> None:
    itself = {"method": "draft_model", "model": "tinytales", "num_speculative_tokens": 4}
    runs = compare(llm, {"none": None, "itself": itself}, PROMPTS, GREEDY, together=together, rounds=2)
    wanted = [output.outputs[0].token_ids for output in llm.generate(PROMPTS, GREEDY)]
    assert runs["none"].token_ids == runs["itself"].token_ids == wanted
    run = runs["itself"]
    assert run.acceptance == 1 and run.tokens_with(4) == 5
    requests = 1 if together else 3
    assert runs["none"].num_steps == 11 * requests
    assert run.num_steps == 3 * requests, "1 token with the prompt, then twice 5"
    assert run.tokens_per_step == pytest.approx(33 / (3 * requests))
    assert [len(times) for times in run.seconds] == [2] * requests and min(map(min, run.seconds)) > 0
    assert len(run.verified) == 2 * 2 * 3, "two steps with drafts for each of 3 requests, in two rounds"
    assert len(run.parts) == 2 * requests and run.model_cost > 0 and run.draft_cost > runs["none"].draft_cost


def test_wrong_drafts_are_counted_as_judged_once(llm: LLM) -> None:
    with minillm.swap(propose=lambda token_ids, limit: [3] * limit):
        run = compare(llm, {"junk": {"method": "ngram"}}, PROMPTS, GREEDY)["junk"]
    assert run.acceptance == 0 and run.tokens_with(4) == 1 and run.num_steps == 33


def test_acceptance_leaves_out_the_drafts_after_a_rejection() -> None:
    run = Run(verified=[(4, 3), (4, 5), (2, 1)])  # 2 and a rejection, 4, a rejection
    assert run.acceptance == pytest.approx(6 / 8) and run.tokens_with(4) == 4
    plain, drafting = Run(seconds=[[3.0, 9.0], [8.0, 5.0]]), Run(seconds=[[2.0, 1.0], [3.0, 7.0]])
    assert drafting.speed_up(plain) == 2.0, "(3 + 5) / (1 + 3)"


def test_the_costs_are_those_of_the_least_disturbed_round() -> None:
    run = Run(parts={(0, 1): (1.0, 0.2), (0, 2): (3.0, 0.4), (1, 1): (2.0, 0.3)})
    assert run.model_cost == 2.0 and run.draft_cost == 0.3
