"""The verifier of chapter 10 from two functions of a reader: whether a draft is accepted, and the residual."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from minillm.sampling import (
    Drafts,
    Sampled,
    SamplingRow,
    Stream,
    draw,
    probabilities,
    process_logits,
    uniform,
)
from minillm.sampling.sample import NO_TOKEN, report_logprobs

Accept = Callable[[Tensor, Tensor, int, float], Any]
Residual = Callable[[Tensor, Tensor], Tensor]


def verifier(accept: Accept, residual: Residual) -> Callable[..., Sampled]:
    """Return a function for `swap(verify=...)` that uses `accept(p, q, x, u)` and `residual(p, q)`.

    `p` and `q` are distributions [V] float64, `x` is a draft and `u` the random number that the engine has for it.
    """

    def verify(
        logits: Tensor, rows: Sequence[SamplingRow], drafts: Sequence[Drafts], vocab_size: int | None = None
    ) -> Sampled:
        errors: dict[int, BaseException] = {}
        p = probabilities(process_logits(logits, rows, vocab_size, errors), rows).double()  # [N, V]
        token_ids, start = list[int](), 0
        for one in drafts:
            end = start + len(one.token_ids) + 1
            token_ids += _tokens(p[start:end], rows[start:end], one, accept, residual)
            start = end
        chosen = torch.tensor(token_ids, device=p.device)
        without = {*errors, *(row for row, token_id in enumerate(token_ids) if token_id == NO_TOKEN)}
        return Sampled(token_ids, report_logprobs(logits, rows, chosen, vocab_size, without), errors)

    return verify


def _tokens(
    p: Tensor, rows: Sequence[SamplingRow], drafts: Drafts, accept: Accept, residual: Residual
) -> list[int]:
    """Return the accepted drafts of one request, one more token, and `NO_TOKEN` for the rest of its k + 1 rows."""
    ids, q = drafts.token_ids, drafts.probs
    if ids and q is None:
        q = torch.zeros_like(p[:-1]).scatter_(1, torch.tensor(ids, device=p.device)[:, None], 1.0)
    for i, x in enumerate(ids):
        assert q is not None
        q_i = q[i].to(p.device).double()
        if not accept(p[i], q_i, x, _number(rows[i], Stream.ACCEPT)):
            corrected = _drawn(residual(p[i], q_i), _number(rows[i], Stream.RESIDUAL))
            return [*ids[:i], corrected] + [NO_TOKEN] * (len(ids) - i)
    return [*ids, _drawn(p[-1], _number(rows[-1], Stream.BONUS if ids else Stream.SAMPLE))]


def _number(row: SamplingRow, stream: Stream) -> float:
    return float(uniform([row.seed], [row.position], stream)[0])


def _drawn(weights: Tensor, u: float) -> int:
    return int(draw(weights[None], torch.tensor([u], dtype=torch.float64, device=weights.device)))
