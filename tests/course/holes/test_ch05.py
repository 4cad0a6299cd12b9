"""The holes of chapter 05: other right answers pass, and each wrong answer is told what is wrong with it."""
# ruff: noqa: F821 - the kernels below are written to a file that imports tl

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from minillm.course.exercise import Wrong
from minillm.course.holes import ch05
from minillm.course.holes.ch05 import add, check_add, check_update, update
from minillm.course.tools.interpreter import interpreted
from minillm.course.tools.launch import interpret

needs_triton = pytest.mark.skipif(bool(ch05.why_no_triton()), reason="triton has no build for this system")


def parts(m, scores):
    new_m = torch.maximum(m, scores.amax(-1))
    return new_m, torch.exp(scores - new_m[:, None]), torch.exp(m - new_m)


def with_the_ratio_of_exponentials(m, l, acc, scores, values):
    """Right, by another algorithm: all old exponents as one more score, whose value is acc / l."""
    new_m, p, fade = parts(m, scores)
    weights = torch.cat([(fade * l)[:, None], p], 1)
    old = torch.where(l > 0, 1 / l, 0)[:, None] * acc
    return [new_m, weights.sum(1), weights[:, :1] * old + torch.einsum("rk,kd->rd", p, values)]


def row_by_row(m, l, acc, scores, values):
    rows = [
        (new_m, old_l * (m - new_m).exp() + p.sum(), a * (m - new_m).exp() + sum(p[:, None] * values))
        for m, old_l, a, s in zip(m, l, acc, scores, strict=True)
        for new_m in [max(m, s.max())]
        for p in [(s - new_m).exp()]
    ]
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def wrong_update(change: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
    """Return `update` with other lines for l and acc."""

    def function(m, l, acc, scores, values):
        new_m, p, fade = parts(m, scores)
        return new_m, *change(l, acc, p, fade, values)

    return function


@pytest.mark.parametrize("right", [update, with_the_ratio_of_exponentials, row_by_row])
def test_a_right_update_passes(right: Callable[..., Any]) -> None:
    check_update(right)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda l, acc, p, fade, v: (l + p.sum(-1), acc * fade[:, None] + p @ v), "l is still relative"),
        (lambda l, acc, p, fade, v: (l * fade + p.sum(-1), acc + p @ v), "acc is still relative"),
        (lambda l, acc, p, fade, v: ((l + p.sum(-1)) * fade, acc), "the new sum is multiplied by fade too"),
        (lambda l, acc, p, fade, v: (l + fade * p.sum(-1), acc), "fade multiplies the new sum"),
        (lambda l, acc, p, fade, v: (p.sum(-1), acc), "the sum of earlier pieces is lost"),
        (lambda l, acc, p, fade, v: (l * fade, acc), "the sum of this piece is missing"),
        (lambda l, acc, p, fade, v: (l * fade + p.sum(-1), p @ v), "the acc of earlier pieces is lost"),
        (
            lambda l, acc, p, fade, v: (l * fade + p.sum(-1), (acc + p @ v) * fade[:, None]),
            "the new product is multiplied by fade too",
        ),
        (
            lambda l, acc, p, fade, v: (l * fade + p.sum(-1), acc + (p @ v) * fade[:, None]),
            "fade multiplies the new product",
        ),
        (
            lambda l, acc, p, fade, v: (
                l * fade + p.sum(-1),
                (acc * fade[:, None] + p @ v) / (l * fade + p.sum(-1))[:, None],
            ),
            "acc is divided by l already",
        ),
        (lambda l, acc, p, fade, v: (l / fade + p.sum(-1), acc), "new_l"),
        (lambda l, acc, p, fade, v: (p.sum(), acc), "new_l has shape"),
    ],
)
def test_a_wrong_update_is_told(change: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_update(wrong_update(change))


def in_place(m, l, acc, scores, values):
    new = update(m, l, acc, scores, values)
    l.copy_(new[1])
    return new


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda *_: None, "None"),
        (lambda m, l, acc, s, v: update(m, l, acc, s, v)[1], "three tensors"),
        (in_place, "It changes `l` in place"),
    ],
)
def test_another_result_is_refused(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_update(wrong)


def another_order(x, y, out, n, BLOCK: "tl.constexpr"):
    at = tl.arange(0, BLOCK) + BLOCK * tl.program_id(0)
    mask = n > at
    tl.store(out + at, tl.load(y + at, mask) + tl.load(x + at, mask), mask)


def no_mask(x, y, out, n, BLOCK: "tl.constexpr"):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = None
    tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask), mask=mask)


def one_too_many(x, y, out, n, BLOCK: "tl.constexpr"):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at <= n
    tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask), mask=mask)


def one_too_few(x, y, out, n, BLOCK: "tl.constexpr"):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n - 1
    tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask), mask=mask)


def within_the_block(x, y, out, n, BLOCK: "tl.constexpr"):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = tl.arange(0, BLOCK) < n
    tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask), mask=mask)


def the_first_block_only(x, y, out, n, BLOCK: "tl.constexpr"):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < BLOCK
    tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask), mask=mask)


def all_programs_alike(x, y, out, n, BLOCK: "tl.constexpr"):
    at = tl.arange(0, BLOCK)
    mask = at < n
    tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask), mask=mask)


def x_twice(x, y, out, n, BLOCK: "tl.constexpr"):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(x + at, mask=mask), mask=mask)


KERNELS = {
    add: "",
    another_order: "",
    no_mask: "Program 2 loads entry 11 of `x`, which has 11 entries",
    one_too_many: "Program 2 loads entry 11 of `x`",
    within_the_block: "Program 2 loads entry 11 of `x`",
    one_too_few: "1 of 11 entries of `out` were never written, the first is [10]. The last entry is n - 1",
    the_first_block_only: "7 of 11 entries of `out` were never written",
    all_programs_alike: "7 of 11 entries of `out` were never written",
    x_twice: "Entry 0 of `out` is 0. It should be 100",
}


def told() -> list[str]:
    """Return what the check says of each kernel. It runs in one process that interprets them all."""

    def launch_here(kernel, programs, *args, **constants):
        after = interpret(inspect.getsource(kernel), kernel.__name__, programs, args, constants)
        args[2].copy_(after[2])

    ch05.launch = launch_here
    said = []
    for kernel in KERNELS:
        try:
            said.append(str(check_add(kernel) or ""))
        except Wrong as wrong:
            said.append(str(wrong))
    return said


@needs_triton
@pytest.mark.slow
def test_each_kernel_is_told_what_is_wrong_with_it() -> None:
    said = interpreted("tests.course.holes.test_ch05:told").result
    for kernel, wanted, message in zip(KERNELS, KERNELS.values(), said, strict=True):
        assert wanted in message and bool(wanted) == bool(message), kernel.__name__


def test_a_system_without_triton_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ch05, "why_no_triton", lambda: "Triton is not installed.")
    with pytest.raises(Wrong, match="Triton is not installed"):
        check_add(add)
