"""A learner's verifier in the engine. It verifies the drafts of one request at a time.

    with minillm.swap(verify=verifier(accept_or_correct)):
        llm = LLM("tinytales", speculative_config={...})

The package's own verifier does the same for all requests at once (sampling/verify.py).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minillm import sampling
from minillm.sampling import (
    NO_TOKEN,
    Drafts,
    Sampled,
    SamplingRow,
    Stream,
    probabilities,
    process_logits,
    sample,
    uniform,
)

Random = Callable[[Stream, int], float]
Step = Callable[[Tensor, Tensor, list[int], Random], list[int]]


def draw(weights: Tensor, u: float) -> int:
    """Return the token at which the running sum of `weights` [V] first exceeds `u` times their total.

    The weights need not add to 1. Raises `ValueError` if a weight is negative, or if all are 0.
    """
    least = int(weights.argmin())
    if weights[least] < 0:
        raise ValueError(f"the weight of token {least} is negative: {weights[least]:.3g}")
    return int(sampling.draw(weights[None], torch.tensor([u], dtype=torch.float64, device=weights.device)))


def verifier(
    step: Step,
) -> Callable[[Tensor, Sequence[SamplingRow], Sequence[Drafts], int | None], Sampled]:
    """Return a verifier for the engine that calls `step(p, q, drafts, random)` for each request with drafts.

    `step` gets p [k + 1, V], q [k, V] and k drafts, and returns the tokens of the step. `random(stream, i)` is the
    random number for row i. The verifier reports no log-probabilities.
    """

    def verify_each(
        logits: Tensor, rows: Sequence[SamplingRow], drafts: Sequence[Drafts], vocab_size: int | None = None
    ) -> Sampled:
        errors: dict[int, BaseException] = {}
        p = probabilities(process_logits(logits, rows, vocab_size, errors), rows)  # [N, V]
        tokens: list[int] = []
        for one in drafts:
            start, k = len(tokens), len(one.token_ids)
            mine = rows[start : start + k + 1]
            if k == 0:
                kept = sample(logits[start : start + 1], mine, vocab_size).token_ids
            else:
                kept = step(p[start : start + k + 1], _q(one, p), list(one.token_ids), _random(mine))
            tokens += [*kept, *[NO_TOKEN] * (k + 1 - len(kept))]
        return Sampled(tokens, [None] * len(rows), errors)

    return verify_each


def _q(drafts: Drafts, p: Tensor) -> Tensor:
    """Return q [k, V]. A draft without probabilities counts as certain."""
    if drafts.probs is not None:
        return drafts.probs.to(p.device)
    ids = torch.tensor(drafts.token_ids, device=p.device)
    return torch.nn.functional.one_hot(ids, p.shape[1]).to(p.dtype)


def _random(rows: Sequence[SamplingRow]) -> Random:
    return lambda stream, i: float(uniform([rows[i].seed], [rows[i].position], stream)[0])
