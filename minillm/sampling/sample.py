"""From logits to tokens: a softmax, and a draw by the inverse of the cumulative distribution.

A draw places the probabilities end to end in id order, on a line from 0 to 1, and takes the token at u. It is a
function of (logits, params, seed, position). It has no state, so no request can influence another one.

Source: Devroye, "Non-Uniform Random Variate Generation" (1986), section III.2: the inversion method.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minillm.sampling.logprobs import Logprob, gather_logprobs
from minillm.sampling.random import Stream, uniform
from minillm.sampling.transforms import SamplingRow, process_logits
from minillm.sampling.truncation import count_mass

# Probabilities that are summed at once. 8 MB of int64 stay in a CPU's cache; half a gigabyte of new pages, for 64 rows
# of 150,000, took ten times as long.
_DRAW_AT_ONCE = 2**20


NO_TOKEN = -1  # of a row after a rejected draft


@dataclass(slots=True)
class Sampled:
    """One token per row, and the model's log-probabilities for the rows whose `params.logprobs` is not None.

    `errors` maps the rows that could not be sampled to the reason. The token of such a row means nothing.
    """

    token_ids: list[int]
    logprobs: list[dict[int, Logprob] | None]
    errors: Mapping[int, BaseException] = field(default_factory=dict)


def sample(logits: Tensor, rows: Sequence[SamplingRow], vocab_size: int | None = None) -> Sampled:
    """Choose a token for each row of `logits` [R, V] (any floating dtype, not changed).

    A row that cannot be sampled gets an entry in `errors` and changes no other row.
    """
    errors: dict[int, BaseException] = {}
    processed = process_logits(logits, rows, vocab_size, errors)
    drawn = [r for r, row in enumerate(rows) if not row.params.is_greedy]
    token_ids = _argmax(processed)
    if drawn:
        u = uniform([rows[r].seed for r in drawn], [rows[r].position for r in drawn], Stream.SAMPLE)
        probs = _select(processed, drawn).softmax(-1)
        token_ids[drawn] = draw(probs, torch.from_numpy(u).to(logits.device))
    return Sampled(token_ids.tolist(), report_logprobs(logits, rows, token_ids, vocab_size, errors), errors)


def probabilities(processed: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Return the distribution [R, V] float32 that each row is drawn from; it is one-hot for a greedy row.

    `processed` [R, V] are the logits that `process_logits` returns.
    """
    probs = processed.softmax(-1)
    greedy = [r for r, row in enumerate(rows) if row.params.is_greedy]
    if greedy:
        best = processed[greedy].argmax(-1, keepdim=True)
        probs[greedy] = torch.zeros_like(probs[greedy]).scatter(-1, best, 1.0)
    return probs


def draw(probs: Tensor, u: Tensor) -> Tensor:
    """Return the tokens [R] int64 at which the cumulative sums of `probs` [R, V] first exceed `u` [R] of their total.

    `probs` is float32 or float64 and not negative; its rows need not sum to exactly 1. `u` is float64 in [0, 1). A
    token of probability zero is never drawn, since adding zero does not change a sum of integers. Raises `ValueError`
    for a row without any probability.
    """
    rows_at_once = max(1, _DRAW_AT_ONCE // probs.shape[-1])
    parts = zip(probs.split(rows_at_once), u.split(rows_at_once), strict=True)
    return torch.cat([_draw_part(part, numbers) for part, numbers in parts])


def _draw_part(probs: Tensor, u: Tensor) -> Tensor:
    cumulative = count_mass(probs).cumsum(-1)  # [R, V]
    total = cumulative[:, -1:]  # [R, 1]
    if bool((total <= 0).any()):
        raise ValueError("a row has no probability above 0, so no token can be drawn from it")
    # u is at most 1 - 2**-53. In float64, that times a total of 53 bits still rounds to less than the total.
    target = (u[:, None] * total).long()
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


def _argmax(logits: Tensor) -> Tensor:
    """Return the id [R] of the highest logit of each row [R, V] float32, the lowest id of equal ones."""
    if logits.is_cpu:  # NumPy's argmax is vectorised there and ten times as fast
        return torch.from_numpy(logits.detach().numpy().argmax(-1))
    return logits.argmax(-1)


def _select(logits: Tensor, indices: list[int]) -> Tensor:
    return logits if len(indices) == len(logits) else logits[indices]


def report_logprobs(
    logits: Tensor,
    rows: Sequence[SamplingRow],
    token_ids: Tensor,
    vocab_size: int | None,
    without: Collection[int],
) -> list[dict[int, Logprob] | None]:
    """Return the log-probabilities of each row that asks for them, except those of the rows `without` a token."""
    report: list[dict[int, Logprob] | None] = [None] * len(rows)
    wanted = [None if r in without else row.params.logprobs for r, row in enumerate(rows)]
    for k in set(wanted):
        if k is None:
            continue
        asking = [r for r, count in enumerate(wanted) if count == k]
        found = gather_logprobs(logits[asking], token_ids[asking], k, vocab_size)
        for r, logprobs in zip(asking, found, strict=True):
            report[r] = logprobs
    return report
