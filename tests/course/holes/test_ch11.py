"""The holes of chapter 11: other right answers pass, and each wrong answer is told what is wrong with it."""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pytest

from minillm.course.exercise import Wrong
from minillm.course.holes.ch11 import check_fused_bytes, check_graph_size, fused_bytes, graph_size


def step_by_step(chain, sizes, results):
    registers, total = set(), 0
    for output, inputs in chain:
        for name in inputs:
            if name not in registers:
                total += sizes[name]
                registers.add(name)
        registers.add(output)
    return total + sum(sizes[name] for name in results)


def outside(chain):
    made = {output for output, _ in chain}
    return {name for _, inputs in chain for name in inputs} - made


@pytest.mark.parametrize("right", [fused_bytes, step_by_step])
def test_right_bytes_pass(right: Callable[..., int]) -> None:
    check_fused_bytes(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda c, s, r: sum(s[n] for out, ins in c for n in [*ins, out]), "separate kernels"),
        (lambda c, s, r: sum(s[n] for n in outside(c)), "only what the kernel reads"),
        (lambda c, s, r: sum(s[n] for n in r), "only what the kernel writes"),
        (
            lambda c, s, r: sum(s[n] for _, ins in c for n in ins if n in outside(c)) + sum(s[n] for n in r),
            "again in each operation",
        ),
        (lambda c, s, r: sum(s[n] for n in outside(c)) + s[c[-1][0]], "only the last output"),
        (
            lambda c, s, r: sum(s[n] for n in outside(c) | {out for out, _ in c}),
            "only the kernel itself uses",
        ),
        (
            lambda c, s, r: sum(s[n] for n in {n for _, ins in c for n in ins} | set(r)),
            "only the kernel itself uses",
        ),
        (
            lambda c, s, r: sum(s[n] for n in {n for _, ins in c for n in ins}) + sum(s[n] for n in r),
            "only the kernel itself uses",
        ),
        (lambda c, s, r: len(outside(c)) + len(r), "trips, not bytes"),
        (lambda c, s, r: (len(outside(c)) + len(r)) * s[c[0][0]], "one size for all"),
        (lambda c, s, r: None, "None"),
        (lambda c, s, r: 1.0 * fused_bytes(c, s, r), "int is wanted"),
    ],
)
def test_wrong_bytes_are_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_fused_bytes(wrong)


def by_bisect(sizes, num_requests):
    place = bisect_left(sizes, num_requests)
    return sizes[place] if place < len(sizes) else None


def by_minimum(sizes, num_requests):
    return min((size for size in sizes if size >= num_requests), default=None)


@pytest.mark.parametrize("right", [graph_size, by_bisect, by_minimum])
def test_a_right_size_passes(right: Callable[..., int | None]) -> None:
    check_graph_size(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda sizes, n: sizes[-1], "largest graph"),
        (lambda sizes, n: next((s for s in sizes if s > n), None), "fit a graph of 4 rows exactly"),
        (lambda sizes, n: max(s for s in sizes if s <= n), "fewer rows than"),
        (lambda sizes, n: min(sizes, key=lambda s: abs(s - n)), "fewer rows than"),
        (lambda sizes, n: n, "no graph of that size"),
        (lambda sizes, n: bisect_left(sizes, n), "place in"),
        (lambda sizes, n: 2 ** (n - 1).bit_length(), "next power of two"),
        (lambda sizes, n: by_minimum(sizes, n) - n, "rows of padding"),
        (lambda sizes, n: by_minimum(sizes, n) or sizes[-1], "No graph has room for 25"),
        (lambda sizes, n: by_minimum(sizes, n) or n, "No graph has room for 25"),
        (lambda sizes, n: next(s for s in sizes if s >= n), "raises StopIteration"),
        (lambda sizes, n: min(s for s in sizes if s >= n), "raises ValueError"),
        (lambda sizes, n: sizes[bisect_left(sizes, n)], "raises IndexError"),
        (lambda sizes, n: None, "has room"),
        (lambda sizes, n: n in sizes, "int is wanted"),
    ],
)
def test_a_wrong_size_is_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_graph_size(wrong)
