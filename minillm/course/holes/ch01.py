"""The holes of chapter 01: the attention of one token, and the draw of a token from its probabilities."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.hole import Hole


def attend(t: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores: Tensor = k[: t + 1] @ q[t] / q.shape[1] ** 0.5
    return scores.softmax(0) @ v[: t + 1]


def check_attend(function: Callable[[int, Tensor, Tensor, Tensor], Any]) -> None:
    q, k, v = (expect.randn(6, 16, seed=seed) for seed in range(3))
    for t in (3, 0, 5):
        given = [x.clone() for x in (q, k, v)]
        expect.close(
            function(t, *given), attend(t, q, k, v), "D", mistakes=_mistakes(t, q, k, v), name=f"token {t}"
        )


def _mistakes(t: int, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Tensor]:
    """Return what each mistake gives for token t, if it differs from the right output."""

    def mix(scores: Tensor, last: int) -> Tensor:
        return scores[:last].softmax(0) @ v[:last]

    right, raw = attend(t, q, k, v), k @ q[t]
    seen = raw[: t + 1] / 4
    found = {
        "It sees later tokens too. Token t may see tokens 0 to t only.": mix(raw / 4, len(q)),
        f"Token {t} sees token {t + 1}, a later one: the slice is one too long.": mix(raw / 4, t + 2),
        f"Token {t} does not see itself: a slice [:t] ends before token t.": mix(raw / 4, t),
        "The scores are not divided by √D.": mix(raw, t + 1),
        "The scores are divided by D. It must be √D.": mix(raw / 16, t + 1),
        "The scores are divided by √T, the number of tokens. It must be √D: D is `q.shape[1]`.": mix(
            raw / len(q) ** 0.5, t + 1
        ),
        "The scores are used as weights. A softmax must make them positive, with a sum of 1.": seen
        @ v[: t + 1],
        "The weights mix the keys. They must mix the values.": seen.softmax(0) @ k[: t + 1],
        "It compares the query with the values. It must be compared with the keys.": (
            v[: t + 1] @ q[t] / 4
        ).softmax(0)
        @ v[: t + 1],
        "The key of token t is compared with the queries. It must be the query of t with the keys.": (
            q[: t + 1] @ k[t] / 4
        ).softmax(0)
        @ v[: t + 1],
        "The exponentials are not divided by their sum, so the weights do not have a sum of 1.": seen.exp()
        @ v[: t + 1],
    }
    return expect.seen(found, right, tolerance=1e-3)


def pick(p: Tensor, u: float) -> int:
    ends = p.cumsum(0)
    return int(torch.searchsorted(ends, u, right=True))


def check_pick(function: Callable[[Tensor, float], Any]) -> None:
    p = torch.tensor([0.125, 0.0, 0.5, 0.25, 0.125], dtype=torch.float64)
    for u in (0.3, 0.0, 0.7, 0.9, 0.125, 0.99):
        right, found = pick(p, u), function(p.clone(), u)
        name = f"pick([0.125, 0, 0.5, 0.25, 0.125], u={u})"
        expect.something(found, name)
        expect.that(
            not isinstance(found, Tensor) or found.ndim == 0,
            f"{name} returns a tensor of shape {list(getattr(found, 'shape', ()))}. Return one int: an id.",
        )
        found = found.item() if isinstance(found, Tensor) else found
        mistakes = {
            "It takes the most likely token, whatever u is.": int(p.argmax()),
            "It is one too far: u lies before the end of the token, so the token itself is meant.": right + 1,
            "It is one too early: the part of the token before this one ends at or before u.": right - 1,
            "Its part ends before u, so u cannot point at it. Is it the token with the nearest end, or a place in the "
            "sorted order? Entry i of p belongs to token i, and the first end greater than u is meant.": _rank(
                p, u
            ),
        }
        if u == 0.125:
            mistakes = {
                "At u = 0.125, the first part has just ended, and token 1 has probability 0. The draw must be token "
                "2: look for the first end that is greater than u.": 0,
                "Token 1 has probability 0 and can never be drawn. Look for the first end that is greater than u.": 1,
            }
        expect.equal(found, right, name, mistakes=expect.seen(mistakes, right))
    _check_repeats(function, p)


def _rank(p: Tensor, u: float) -> int:
    return pick(p.sort(descending=True).values, u)


def _check_repeats(function: Callable[[Tensor, float], Any], p: Tensor) -> None:
    """Check that the draw depends on p and u alone."""
    drawn = {int(function(p.clone(), 0.55)) for _ in range(20)}
    expect.that(drawn == {2}, f"Twenty calls with u=0.55 gave tokens {sorted(drawn)}. u alone must choose.")


HOLES = [Hole("01.attend", attend, check_attend), Hole("01.pick", pick, check_pick)]
