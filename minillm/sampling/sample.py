"""From logits to tokens: a softmax, and a draw by the inverse of the cumulative distribution.

A draw lays the probabilities end to end in id order, on a line from 0 to 1, and takes the token that lies at u.
It is a function of (logits, params, seed, position): no state, so no two requests can disturb each other.

Source: Devroye, "Non-Uniform Random Variate Generation" (1986), section III.2: the inversion method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minillm.sampling.logprobs import Logprob, gather_logprobs
from minillm.sampling.random import Stream, uniform
from minillm.sampling.transforms import SamplingRow, process_logits
from minillm.sampling.truncation import count_mass

# Probabilities that become int64 sums at a time: 8 MB stay in a CPU's cache, where half a gigabyte of fresh pages for
# 64 rows of 150,000 took ten times as long.
_DRAW_AT_ONCE = 2**20


@dataclass(slots=True)
class Sampled:
    """One token for each row, and what the model thought of it where `params.logprobs` asked."""

    token_ids: list[int]
    logprobs: list[dict[int, Logprob] | None]


def sample(logits: Tensor, rows: Sequence[SamplingRow], vocab_size: int | None = None) -> Sampled:
    """Choose a token for each row of `logits` [R, V] (any floating dtype, left as it is).

    Raises what `process_logits` raises.
    """
    processed = process_logits(logits, rows, vocab_size)
    drawn = [r for r, row in enumerate(rows) if not row.params.is_greedy]
    token_ids = _argmax(processed)
    if drawn:
        u = uniform([rows[r].seed for r in drawn], [rows[r].position for r in drawn], Stream.SAMPLE)
        probs = _select(processed, drawn).softmax(-1)
        token_ids[drawn] = draw(probs, torch.from_numpy(u).to(logits.device))
    return Sampled(token_ids.tolist(), _report(logits[:, :vocab_size], rows, token_ids))


def probabilities(processed: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The distribution [R, V] float32 that each row of `processed` [R, V] is drawn from; a greedy row's is one-hot.

    The processed logits are those of `process_logits`.
    """
    probs = processed.softmax(-1)
    greedy = [r for r, row in enumerate(rows) if row.params.is_greedy]
    if greedy:
        best = processed[greedy].argmax(-1, keepdim=True)
        probs[greedy] = torch.zeros_like(probs[greedy]).scatter(-1, best, 1.0)
    return probs


def draw(probs: Tensor, u: Tensor) -> Tensor:
    """The tokens [R] int64 at which the cumulative sums of `probs` [R, V] first exceed `u` [R] of their total.

    `probs` is float32 or float64, not negative, and need not sum to one (rounding sees to that); `u` is float64 in
    [0, 1). A token of probability zero is never drawn: sums of integers do not move where nothing is added. Raises
    `ValueError` for a row without any probability.
    """
    rows_at_once = max(1, _DRAW_AT_ONCE // probs.shape[-1])
    parts = zip(probs.split(rows_at_once), u.split(rows_at_once), strict=True)
    return torch.cat([_draw_part(part, numbers) for part, numbers in parts])


def _draw_part(probs: Tensor, u: Tensor) -> Tensor:
    cumulative = count_mass(probs).cumsum(-1)  # [R, V]
    total = cumulative[:, -1:]  # [R, 1]
    if bool((total <= 0).any()):
        raise ValueError("a row has no probability above 0 for any token: nothing can be drawn from it")
    # In float64, u <= 1 - 2**-53 times a total, itself rounded to 53 bits, still rounds to less than the total.
    target = (u[:, None] * total).long()
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


def _argmax(logits: Tensor) -> Tensor:
    """The place [R] of the highest of each row [R, V] float32, of equal ones the first, that is, the lowest id."""
    if logits.is_cpu:  # where NumPy's is vectorised, ten times as fast
        return torch.from_numpy(logits.detach().numpy().argmax(-1))
    return logits.argmax(-1)


def _select(logits: Tensor, indices: list[int]) -> Tensor:
    return logits if len(indices) == len(logits) else logits[indices]


def _report(
    raw_logits: Tensor, rows: Sequence[SamplingRow], token_ids: Tensor
) -> list[dict[int, Logprob] | None]:
    report: list[dict[int, Logprob] | None] = [None] * len(rows)
    for k in {row.params.logprobs for row in rows}:
        if k is None:
            continue
        asking = [r for r, row in enumerate(rows) if row.params.logprobs == k]
        for r, found in zip(asking, gather_logprobs(raw_logits[asking], token_ids[asking], k), strict=True):
            report[r] = found
    return report
