"""The hole of chapter 00: other right answers pass, and each wrong answer is told what is wrong with it."""

from collections.abc import Callable

import pytest

from minillm.course.exercise import Wrong
from minillm.course.holes.ch00 import check_token_limit, token_limit


@pytest.mark.parametrize(
    "right",
    [
        token_limit,
        lambda b, w, c, n: n / ((w + n * c) / b),
        lambda b, w, c, n: n * (1 / (w / b + n * (c / b))),
        lambda b, w, c, n: sum(b / (w + n * c) for _ in range(n)),
    ],
)
def test_a_right_limit_passes(right: Callable[..., float]) -> None:
    check_token_limit(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda b, w, c, n: b / (w + n * c), "counts steps per second"),
        (lambda b, w, c, n: b / (w + c), "reads the weights for each request"),
        (lambda b, w, c, n: n * b / (w + c), "cache of one request only"),
        (lambda b, w, c, n: n * b / w, "The caches are missing"),
        (lambda b, w, c, n: (w + n * c) / b, "the seconds of a step"),
        (lambda b, w, c, n: (w + n * c) / b / n, "seconds per token"),
        (lambda b, w, c, n: w + n * c, "the bytes of a step"),
        (lambda b, w, c, n: n * b / w + n * c, "needs parentheses"),
        (lambda b, w, c, n: n * b // (w + n * c), "Use `/`"),
        (lambda b, w, c, n: n * b * (w + n * c), "It should be 10000"),
        (lambda b, w, c, n: n * b / (w + n * c) / 1e9, "It should be 10000"),
        (lambda b, w, c, n: None, "is None"),
        (lambda b, w, c, n: "10000", "a number is wanted"),
        (lambda b, w, c, n: float("inf"), "is inf"),
    ],
)
def test_a_wrong_limit_is_told(wrong: Callable[..., object], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_token_limit(wrong)
