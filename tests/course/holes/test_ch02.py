"""The holes of chapter 02: other right answers pass, and each wrong answer is told what is wrong with it."""

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from minillm.course.exercise import Wrong
from minillm.course.holes.ch02 import check_decode_intensity, check_step_time, decode_intensity, step_time


def from_each_side(weights, width, batch, kv_bytes):
    return 1 / (width / (2 * batch) + kv_bytes / (2 * weights))


def request_by_request(weights, width, batch, kv_bytes):
    flops, moved = 0, weights * width
    for _ in range(batch):
        flops, moved = flops + 2 * weights, moved + kv_bytes
    return flops / moved


@pytest.mark.parametrize(
    "right",
    [
        decode_intensity,
        from_each_side,
        request_by_request,
        lambda *case: numpy.float64(decode_intensity(*case)),
    ],
)
def test_a_right_intensity_passes(right: Callable[..., Any]) -> None:
    check_decode_intensity(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda w, b, n, kv: 2 * w * n / (n * (w * b + kv)), "reads the weights for each request"),
        (lambda w, b, n, kv: 2 * w / (w * b + kv), "reads the weights for each request"),
        (lambda w, b, n, kv: 2 * w * n / (w * b + kv), "Only one request's cache"),
        (lambda w, b, n, kv: 2 * n / b, "The caches are missing"),
        (lambda w, b, n, kv: 2 * w / (w * b + n * kv), "those of one request"),
        (lambda w, b, n, kv: w * n / (w * b + n * kv), "one FLOP per weight"),
        (lambda w, b, n, kv: (w * b + n * kv) / (2 * w * n), "upside down"),
        (lambda w, b, n, kv: 2 * w * n / (w + n * kv), "`width` is missing"),
        (lambda w, b, n, kv: 2 * w * n / (2 * w + n * kv), "Every weight has 2 bytes"),
        (lambda w, b, n, kv: 2 * w * n / (b * (w + n * kv)), "a number of bytes already"),
        (lambda w, b, n, kv: 2 * w * n / w * b + n * kv, "needs parentheses"),
        (lambda w, b, n, kv: 2 * w * n, "gives the FLOP of the step"),
        (lambda w, b, n, kv: w * b + n * kv, "gives the bytes of the step"),
        (lambda w, b, n, kv: 2 * w * n // (w * b + n * kv), "rounded down"),
        (lambda w, b, n, kv: 2 * w * n / (w * b + 2 * n * kv), "It should be 2.5 FLOP per byte"),
        (lambda w, b, n, kv: None, "is None"),
        (lambda w, b, n, kv: "3.6", "a number is wanted"),
    ],
)
def test_a_wrong_intensity_is_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_decode_intensity(wrong)


def by_if(flops, moved, peak, bandwidth):
    if moved / bandwidth >= flops / peak:
        return moved / bandwidth, "memory"
    return flops / peak, "compute"


def by_the_ridge(flops, moved, peak, bandwidth):
    intensity, ridge = flops / moved, peak / bandwidth
    return [flops / min(peak, intensity * bandwidth), "compute" if intensity >= ridge else "memory"]


def by_max_of_pairs(flops, moved, peak, bandwidth):
    return max((flops / peak, "compute"), (moved / bandwidth, "memory"))


@pytest.mark.parametrize("right", [step_time, by_if, by_the_ridge, by_max_of_pairs])
def test_a_right_time_passes(right: Callable[..., Any]) -> None:
    check_step_time(right)


def with_the_right_bound(seconds: Callable[[float, float, float, float], float]) -> Callable[..., Any]:
    return lambda *case: (seconds(*case), step_time(*case)[1])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (with_the_right_bound(lambda f, m, p, b: f / p + m / b), "It adds the two times"),
        (with_the_right_bound(lambda f, m, p, b: min(f / p, m / b)), "the shorter of the two"),
        (with_the_right_bound(lambda f, m, p, b: f / p), "the shorter of the two"),
        (with_the_right_bound(lambda f, m, p, b: m / b), "the shorter of the two"),
        (with_the_right_bound(lambda f, m, p, b: (f / p + m / b) / 2), "the mean of the two"),
        (with_the_right_bound(lambda f, m, p, b: max(f / b, m / p)), "rates are exchanged"),
        (with_the_right_bound(lambda f, m, p, b: 1 / max(f / p, m / b)), "the step per second"),
        (with_the_right_bound(lambda f, m, p, b: max(p / f, b / m)), "Both quotients are upside down"),
        (with_the_right_bound(lambda f, m, p, b: max(f * p, m * b)), "multiplies work and rate"),
        (with_the_right_bound(lambda f, m, p, b: 1e3 * max(f / p, m / b)), "milliseconds"),
        (with_the_right_bound(lambda f, m, p, b: min(p, f / m * b)), "the rate in FLOP per second"),
        (with_the_right_bound(lambda f, m, p, b: 6.5), "is 6.5 s. It should be 5 s"),
        (with_the_right_bound(lambda f, m, p, b: None), "the time of .* is None"),
        (lambda f, m, p, b: max(f / p, m / b), "Return two things"),
        (lambda f, m, p, b: (max(f / p, m / b), "bandwidth"), '\'bandwidth\'. It is "compute" or "memory"'),
        (lambda f, m, p, b: (max(f / p, m / b), "memory"), "says 'memory', but computing takes 20 s"),
        (
            lambda f, m, p, b: (max(f / p, m / b), "memory" if f / p > m / b else "compute"),
            "The longer of the two sets the time",
        ),
        (lambda f, m, p, b: (max(f / p, m / b), "compute" if f > m else "memory"), "says 'compute', but"),
        (lambda f, m, p, b: None, "is None"),
    ],
)
def test_a_wrong_time_is_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_step_time(wrong)
