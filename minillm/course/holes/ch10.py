"""The holes of chapter 10: accept a draft, and the residual."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.hole import Hole

P, Q = (0.5, 0.3, 0.2, 0.0), (0.2, 0.65, 0.1, 0.05)  # of the model and of the draft


def accept(p: Tensor, q: Tensor, x: int, u: float) -> Any:
    return u < p[x] / q[x]


def check_accept(function: Callable[..., Any]) -> None:
    def said(x: int, u: float, p: tuple[float, ...] = P, q: tuple[float, ...] = Q) -> bool:
        return _bool(
            function(torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64), x, u)
        )

    answers = {(x, u): said(x, u) for x in range(4) for u in (0.1, 0.31, 0.4, 0.5, 0.6, 0.75, 0.97)}
    wanted = {(x, u): u * Q[x] < P[x] for x, u in answers}
    mistakes: dict[str, Callable[[int, float], bool]] = {
        "It accepts every draft. Then the text has the draft model's distribution.": lambda x, u: True,
        "It rejects every draft, so no draft saves a step.": lambda x, u: False,
        "The ratio is upside down: it is p[x] / q[x].": lambda x, u: u * P[x] < Q[x],
        "The comparison is the wrong way round: a large ratio should mean that most drafts are kept.": (
            lambda x, u: u * Q[x] >= P[x]
        ),
        "It compares u with p[x] alone. The draft was not drawn from p, so divide by q[x].": (
            lambda x, u: u < P[x]
        ),
        "It compares u with q[x] alone. Whether to keep x depends on the model's p[x] too.": (
            lambda x, u: u < Q[x]
        ),
        "It compares u with the difference p[x] - q[x]. The rule uses their ratio.": (
            lambda x, u: u < P[x] - Q[x]
        ),
        "It keeps x only if p[x] is at least q[x], whatever u is. A draft with a smaller p is kept sometimes.": (
            lambda x, u: P[x] >= Q[x]
        ),
        "It keeps only the model's most likely token. Other tokens have a probability too.": (
            lambda x, u: x == 0
        ),
    }
    for message, mistaken in mistakes.items():
        expect.that(answers != {case: mistaken(*case) for case in answers}, message)
    for (x, u), right in wanted.items():
        expect.that(
            answers[x, u] == right,
            f"p = {P}, q = {Q}, x = {x}, u = {u}: the ratio is {P[x] / Q[x]:.2f}, so the draft should be "
            f"{'kept' if right else 'rejected'}.",
        )
    expect.that(
        not said(3, 0.0), "It keeps a draft of probability 0 in the model when u is 0. Use <, and not <=."
    )
    expect.that(
        said(0, 0.999, (1.0, 0.0), (1.0, 0.0)),
        "p and q are equal: then every draft is kept, for every u < 1.",
    )


def residual(p: Tensor, q: Tensor) -> Tensor:
    rest = (p - q).clamp(min=0)
    return rest / rest.sum() if rest.sum() > 0 else p


def check_residual(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    p, q = torch.tensor(P, dtype=torch.float64), torch.tensor(Q, dtype=torch.float64)
    kept = p.clone(), q.clone()
    difference = p - q
    mistakes = {
        "It returns p, and tokens that drafts bring often enough would come out too often. (The sum of p - q is 0, so "
        "p - q gives p too. Set its negative numbers to 0.)": p,
        "It returns p - q with its negative numbers. Set them to 0.": difference,
        "It divides p - q by its sum, which is 0. First set the negative numbers to 0.": difference
        / difference.sum(),
        "It takes q - p. The residual has what the drafts bring too seldom, so p is larger there.": _scaled(
            q - p
        ),
        "It takes the absolute difference. A token with q above p must not come out again.": _scaled(
            difference.abs()
        ),
        "Its sum is not 1. Divide it by its sum.": difference.clamp(min=0),
        "It takes min(p, q), which is what acceptance brings already.": _scaled(torch.minimum(p, q)),
        "It takes a softmax, which gives a probability to every token. Divide by the sum.": (
            difference.clamp(min=0).softmax(-1)
        ),
    }
    expect.close(function(p, q), residual(*kept), "V", mistakes=mistakes, tolerance=1e-9)
    expect.that(
        torch.equal(p, kept[0]) and torch.equal(q, kept[1]), "It changes p or q. Work on new tensors."
    )
    equal = function(p, p.clone())
    expect.tensor(equal, p.shape, "V", name="with q equal to p, the result")
    expect.that(
        not equal.isnan().any(), "With q equal to p it divides 0 by 0. Nothing is left over then: return p."
    )
    expect.close(equal, p, "V", name="with q equal to p, the result")


def _scaled(weights: Tensor) -> Tensor:
    positive = weights.clamp(min=0)
    return positive / positive.sum()


def _bool(value: Any) -> bool:
    expect.something(value)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    expect.that(
        isinstance(value, bool | np.bool_),
        f"The result is a {type(value).__name__} ({value!r:.40}). Compare u with the ratio: True or False is wanted.",
    )
    return bool(value)


HOLES = [Hole("10.accept", accept, check_accept), Hole("10.residual", residual, check_residual)]
