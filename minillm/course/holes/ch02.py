"""The holes of chapter 02: the arithmetic intensity of a decode step, and the least time of a step."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from minillm.course import expect
from minillm.course.hole import Hole


def decode_intensity(weights: int, width: float, batch: int, kv_bytes: int) -> float:
    return 2 * weights * batch / (weights * width + batch * kv_bytes)


# (weights, width, batch, kv_bytes): 4-byte weights, 1-byte weights, one request, no cache, 4-bit weights
INTENSITIES = ((1000, 4, 8, 300), (6000, 1, 3, 500), (900, 2, 1, 70), (100, 2, 16, 0), (5000, 0.5, 4, 90))


def check_decode_intensity(function: Callable[[int, float, int, int], Any]) -> None:
    for case in INTENSITIES:
        weights, width, batch, kv_bytes = case
        name = f"decode_intensity(weights={weights}, width={width}, batch={batch}, kv_bytes={kv_bytes})"
        found = expect.number(function(*case), name)
        _near(found, decode_intensity(*case), name, _intensity_mistakes(*case), "FLOP per byte")


def _intensity_mistakes(weights: int, width: float, batch: int, kv_bytes: int) -> dict[str, float]:
    """Return what each known mistake gives, by the sentence that explains it."""
    flops, moved = 2 * weights * batch, weights * width + batch * kv_bytes
    return {
        "The step reads the weights for each request. One reading serves the whole batch.": flops
        / (batch * (weights * width + kv_bytes)),
        "Only one request's cache is read. Each request of the batch reads its own `kv_bytes`.": flops
        / (weights * width + kv_bytes),
        "The caches are missing from the bytes. Each request reads `kv_bytes`.": 2 * batch / width,
        "The FLOP are those of one request. Each request is multiplied by all weights.": flops
        / batch
        / moved,
        "It counts one FLOP per weight. A multiplication and an addition are 2 FLOP.": flops / 2 / moved,
        "It is upside down: bytes per FLOP. Divide the FLOP by the bytes.": moved / flops,
        "`width` is missing: the weights are counted, not their bytes.": flops / (weights + batch * kv_bytes),
        "Every weight has 2 bytes. Use `width`.": flops / (2 * weights + batch * kv_bytes),
        "`kv_bytes` is multiplied by `width`, but it is a number of bytes already.": flops
        / (width * (weights + batch * kv_bytes)),
        "The sum of the bytes needs parentheses: Python divides before it adds.": flops / weights * width
        + batch * kv_bytes,
        "It gives the FLOP of the step. Divide them by its bytes.": flops,
        "It gives the bytes of the step. Divide its FLOP by them.": moved,
        "It is rounded down to a whole number. Use `/`, not `//`.": flops // moved,
    }


def step_time(flops: float, moved: float, peak: float, bandwidth: float) -> tuple[float, str]:
    compute, memory = flops / peak, moved / bandwidth
    return max(compute, memory), "compute" if compute > memory else "memory"


# (flops, moved, peak, bandwidth): memory is longer, computing is longer, and a step of billions
TIMES = (
    (60.0, 40.0, 30.0, 8.0),
    (600.0, 40.0, 30.0, 8.0),
    (16e9, 15e9, 1e15, 3e12),
    (14e12, 15e9, 1e15, 3e12),
)


def check_step_time(function: Callable[[float, float, float, float], Any]) -> None:
    for case in TIMES:
        flops, moved, peak, bandwidth = case
        name = f"step_time(flops={flops:g}, moved={moved:g}, peak={peak:g}, bandwidth={bandwidth:g})"
        seconds, bound = _pair(function(*case), name)
        right, wanted = step_time(*case)
        _near(expect.number(seconds, f"the time of {name}"), right, name, _time_mistakes(*case), "s")
        expect.that(
            bound in ("compute", "memory"),
            f'{name}: the second entry is {bound!r}. It is "compute" or "memory".',
        )
        expect.that(
            bound == wanted,
            f"{name}: it says {bound!r}, but computing takes {flops / peak:.3g} s and moving the bytes takes "
            f"{moved / bandwidth:.3g} s. The longer of the two sets the time.",
        )


def _pair(value: Any, name: str) -> tuple[Any, Any]:
    expect.something(value, name)
    if not isinstance(value, tuple | list):
        expect.number(value, name)
    expect.that(
        isinstance(value, tuple | list) and len(value) == 2,
        f'{name} is {value!r:.60}. Return two things: the seconds, and "compute" or "memory".',
    )
    return value[0], value[1]


def _time_mistakes(flops: float, moved: float, peak: float, bandwidth: float) -> dict[str, float]:
    """Return what each known mistake gives, by the sentence that explains it."""
    compute, memory = flops / peak, moved / bandwidth
    return {
        "It adds the two times. The machine reads and computes at the same time: the longer one counts.": compute
        + memory,
        "It takes the shorter of the two times. The step ends when both are done.": min(compute, memory),
        "It is the mean of the two times. The step ends when both are done.": (compute + memory) / 2,
        "The rates are exchanged. `peak` belongs to the FLOP and `bandwidth` to the bytes.": max(
            flops / bandwidth, moved / peak
        ),
        "It is upside down: the step per second. Divide the work by the rate.": 1 / max(compute, memory),
        "Both quotients are upside down. Divide the work by the rate.": max(peak / flops, bandwidth / moved),
        "It multiplies work and rate. Divide the work by the rate.": max(flops * peak, moved * bandwidth),
        "It is in milliseconds. Return seconds.": 1e3 * max(compute, memory),
        "It gives the rate in FLOP per second. Return the time in seconds.": min(
            peak, flops / moved * bandwidth
        ),
    }


def _near(found: float, right: float, name: str, mistakes: Mapping[str, float], unit: str) -> None:
    """Raise Wrong with the mistake that gives `found`, or with both numbers, unless `found` is right."""
    if math.isclose(found, right, rel_tol=1e-6):
        return
    for message, mistaken in mistakes.items():
        expect.that(not math.isclose(found, mistaken, rel_tol=1e-6), message)
    expect.that(False, f"{name} is {found:.6g} {unit}. It should be {right:.6g} {unit}.")


HOLES = [
    Hole("02.intensity", decode_intensity, check_decode_intensity),
    Hole("02.time", step_time, check_step_time),
]
