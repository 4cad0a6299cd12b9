"""Rejection sampling: accept or correct drafts so that the result has exactly the model's distribution.

Let a draft x be drawn from q, and let p be the model's distribution in its place. Accept x with the probability
min(1, p(x) / q(x)). Otherwise draw from the *residual*, max(p - q, 0) divided by its sum, and forget all later drafts.
Then each token t comes out with the probability

    min(p(t), q(t))  +  (1 - sum of min(p, q)) * max(p(t) - q(t), 0) / sum of max(p - q, 0)  =  p(t),

because both sums over all tokens add to 1. If all k drafts are accepted, the model has one more distribution, the one
after the last draft, and a bonus token is drawn from it.

A draft without a distribution counts as certain: q is 1 for it. Then sampling alone is a verification (`Engine`), and
it gives the same tokens as without drafts. This file also accepts such drafts.

Source: Leviathan, Kalman, Matias 2023 (arXiv 2211.17192), algorithm 1; Chen et al. 2023 (arXiv 2302.01318).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from minillm.sampling.random import Stream, uniform
from minillm.sampling.sample import NO_TOKEN, Sampled, draw, probabilities, report_logprobs
from minillm.sampling.transforms import SamplingRow, process_logits


@dataclass(frozen=True, slots=True)
class Drafts:
    """Proposed tokens [k]. `probs` [k, V] float32 has the distributions that they were drawn from.

    Without `probs`, each draft counts as certain: its distribution is 1 for the draft and 0 for all other tokens.
    """

    token_ids: list[int]
    probs: Tensor | None = None


def verify(
    logits: Tensor, rows: Sequence[SamplingRow], drafts: Sequence[Drafts], vocab_size: int | None = None
) -> Sampled:
    """Accept or correct the drafts of R requests, and return one token per row of `logits` [N, V].

    A request with k drafts has k + 1 rows: after its last token, and after each draft. Its tokens are its accepted
    drafts and one more token. The rest of its rows have `NO_TOKEN`. A request without drafts is sampled. A row that
    cannot be sampled gets an entry in `errors`.
    """
    errors: dict[int, BaseException] = {}
    p = probabilities(process_logits(logits, rows, vocab_size, errors), rows)  # [N, V]
    device, counts = p.device, [len(one.token_ids) for one in drafts]
    num_drafts = torch.tensor(counts, device=device)  # [R]
    first_row = (num_drafts + 1).cumsum(0) - num_drafts - 1  # [R]
    first_draft = num_drafts.cumsum(0) - num_drafts  # [R]
    after = torch.repeat_interleave(first_row - first_draft, num_drafts)
    draft_rows = torch.arange(sum(counts), device=device) + after  # [D] the row in which each draft is judged
    x = torch.tensor(
        list(chain.from_iterable(one.token_ids for one in drafts)), dtype=torch.int64, device=device
    )
    q = torch.cat([_distributions(one, p.shape[1], device) for one in drafts])  # [D, V]

    accepted = _uniform(rows, draft_rows.tolist(), Stream.ACCEPT, device) < _ratios(
        p[draft_rows], q, x
    )  # [D]
    num_accepted = _leading(accepted, num_drafts)  # [R]
    last = first_row + num_accepted  # [R] the row of each request's last token
    weights = p[last].double()  # [R, V]
    corrected = num_accepted < num_drafts
    if len(x):
        residual = (weights - q[(first_draft + num_accepted).clamp_max(len(x) - 1)]).clamp_min(0)
        mass = residual.sum(-1, keepdim=True)  # [R, 1]
        use = corrected[:, None] & (mass > 0)  # if p and q are equal but for rounding, draw from p
        weights = torch.where(use, residual / mass, weights)

    u = torch.empty(len(counts), dtype=torch.float64, device=device)
    for stream, chosen in (
        (Stream.RESIDUAL, corrected),
        (Stream.BONUS, ~corrected & (num_drafts > 0)),
        (Stream.SAMPLE, num_drafts == 0),
    ):
        u[chosen] = _uniform(rows, last[chosen].tolist(), stream, device)

    token_ids = torch.full((len(rows),), NO_TOKEN, device=device)
    kept = torch.arange(len(x), device=device) < torch.repeat_interleave(
        first_draft + num_accepted, num_drafts
    )
    token_ids[draft_rows[kept]] = x[kept]
    token_ids[last] = draw(weights, u)
    without = {*errors, *torch.nonzero(token_ids == NO_TOKEN).flatten().tolist()}
    return Sampled(token_ids.tolist(), report_logprobs(logits, rows, token_ids, vocab_size, without), errors)


def _distributions(drafts: Drafts, vocab_size: int, device: torch.device) -> Tensor:
    """Return q [k, V] float32 of one request's drafts."""
    if drafts.probs is not None:
        return drafts.probs.to(device)
    q = torch.zeros(len(drafts.token_ids), vocab_size, device=device)
    return q.scatter_(1, torch.tensor(drafts.token_ids, dtype=torch.int64, device=device)[:, None], 1.0)


def _ratios(p: Tensor, q: Tensor, x: Tensor) -> Tensor:
    """Return p(x) / q(x) [D] float64 for drafts x [D] with the distributions p and q [D, V]."""
    p_x, q_x = (probs.gather(1, x[:, None])[:, 0].double() for probs in (p, q))
    return p_x / q_x


def _leading(accepted: Tensor, num_drafts: Tensor) -> Tensor:
    """Return how many drafts each request accepts before its first rejection: [R], from all drafts' `accepted` [D]."""
    most = int(num_drafts.max()) if len(num_drafts) else 0
    inside = torch.arange(most, device=accepted.device) < num_drafts[:, None]  # [R, k]
    table = torch.zeros_like(inside)
    table[inside] = accepted
    return table.long().cumprod(1).sum(1)


def _uniform(rows: Sequence[SamplingRow], chosen: list[int], stream: Stream, device: torch.device) -> Tensor:
    """Return a random number for each of the chosen rows: float64."""
    u = uniform([rows[r].seed for r in chosen], [rows[r].position for r in chosen], stream)
    return torch.from_numpy(u).to(device)
