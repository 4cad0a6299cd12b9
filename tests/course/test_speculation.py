"""A verifier from a reader's two functions decides as the package's does, and shows a reader's mistake."""

from typing import Any

import pytest
import torch

from minillm.course.holes.ch10 import accept, residual
from minillm.course.speculation import verifier
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
