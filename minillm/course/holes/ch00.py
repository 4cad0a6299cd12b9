"""The hole of chapter 00: the most tokens per second that the bandwidth allows."""

import math
from collections.abc import Callable
from typing import Any

from minillm.course import expect
from minillm.course.hole import Hole


def token_limit(bandwidth: float, weight_bytes: float, cache_bytes: float, requests: int) -> float:
    return requests * bandwidth / (weight_bytes + requests * cache_bytes)


# (bandwidth, weight_bytes, cache_bytes, requests): the example by hand, one request, a large model, no cache
CASES = (
    (30e9, 24e6, 0.6e6, 10),
    (30e9, 24e6, 0.6e6, 1),
    (3.35e12, 140e9, 1.3e9, 16),
    (2e12, 16e9, 0, 4),
    (7.0, 3.0, 2.0, 3),
)


def check_token_limit(function: Callable[[float, float, float, int], Any]) -> None:
    for case in CASES:
        bandwidth, weight_bytes, cache_bytes, requests = case
        right = token_limit(*case)
        name = (
            f"token_limit(bandwidth={bandwidth:g}, weight_bytes={weight_bytes:g}, "
            f"cache_bytes={cache_bytes:g}, requests={requests})"
        )
        found = expect.number(function(*case), name)
        for said, wrong in _mistakes(*case).items():
            expect.that(math.isclose(wrong, right) or not math.isclose(found, wrong), said)
        expect.that(
            math.isclose(found, right, rel_tol=1e-6),
            f"{name} gave {found:.6g} tokens per second. It should be {right:.6g}.",
        )


def _mistakes(bandwidth: float, weight_bytes: float, cache_bytes: float, requests: int) -> dict[str, float]:
    """Return what each known mistake gives, by the sentence that explains it."""
    moved = weight_bytes + requests * cache_bytes
    return {
        "It counts steps per second. Each step writes one token for each request.": bandwidth / moved,
        "It reads the weights for each request. One reading serves all requests of the step.": requests
        * bandwidth
        / (requests * (weight_bytes + cache_bytes)),
        "It reads the cache of one request only. Each request has a cache of `cache_bytes`.": requests
        * bandwidth
        / (weight_bytes + cache_bytes),
        "The caches are missing. Each request reads `cache_bytes` in every step.": requests
        * bandwidth
        / weight_bytes,
        "It gives the seconds of a step. Divide the number of requests by them.": moved / bandwidth,
        "It gives seconds per token. Turn the fraction upside down.": moved / bandwidth / requests,
        "It gives the bytes of a step. Divide the bandwidth by them.": moved,
        "The sum of the bytes needs parentheses: Python divides before it adds.": requests
        * bandwidth
        / weight_bytes
        + requests * cache_bytes,
        "It is rounded down to a whole number. Use `/`, not `//`.": requests * bandwidth // moved,
    }


HOLES = [Hole("00.limit", token_limit, check_token_limit)]
