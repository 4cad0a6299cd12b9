"""A learner's verifier gives the tokens of the package's verifier, one request at a time."""

import pytest
import torch
from torch import Tensor

from minillm.course.verifier import Random, draw, verifier
from minillm.sampling import NO_TOKEN, Drafts, SamplingParams, SamplingRow, Stream, verify

V = 7


def accept_or_correct(p: Tensor, q: Tensor, drafts: list[int], random: Random) -> list[int]:
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) >= float(p[i, x]) / float(q[i, x]):
            return [*drafts[:i], draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i))]
    return [*drafts, draw(p[-1], random(Stream.BONUS, len(drafts)))]


def test_it_equals_the_packages_verifier():
    torch.manual_seed(0)
    for seed in range(40):
        counts = [seed % 4, 0, 3, 1]
        rows, drafts = [], []
        for r, k in enumerate(counts):
            row = SamplingRow(SamplingParams(temperature=0 if r == 3 else 1), seed * 10 + r, [1, 2], [3])
            probs = torch.randn(k, V).softmax(-1)
            ids = [int(torch.multinomial(one, 1)) for one in probs]
            rows += [row, *(row.after(ids[:i]) for i in range(1, k + 1))]
            drafts.append(Drafts(ids, None if r == 2 else probs))
        logits = torch.randn(len(rows), V)
        found = verifier(accept_or_correct)(logits, rows, drafts, V)
        assert found.token_ids == verify(logits, rows, drafts, V).token_ids
        assert len(found.logprobs) == len(rows) and not found.errors


def test_a_step_of_fewer_tokens_is_filled_up():
    row = SamplingRow(SamplingParams(), 1, [1], [])
    drafts = [Drafts([4, 5], torch.full((2, V), 1 / V))]
    found = verifier(lambda p, q, ids, random: [6])(torch.zeros(3, V), [row] * 3, drafts)
    assert found.token_ids == [6, NO_TOKEN, NO_TOKEN]


def test_draw_is_exact_and_needs_weights():
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0])
    assert [draw(weights, u) for u in (0.0, 0.2499, 0.25, 1 - 2**-53)] == [1, 1, 3, 3]
    with pytest.raises(ValueError, match="the weight of token 1 is negative"):
        draw(torch.tensor([0.5, -0.5, 0.2]), 0.1)
    with pytest.raises(ValueError, match="no probability above 0"):
        draw(torch.zeros(3), 0.1)
