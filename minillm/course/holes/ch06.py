"""The holes of chapter 06: a row of weights on a grid, and a product of 8-bit numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.exercise import Wrong
from minillm.course.hole import Hole

Quantise = Callable[[Tensor, int], Any]  # (row [columns], bits) -> (numbers [columns], scale)
Product = Callable[[Tensor, Tensor, Tensor, Tensor], Any]  # (q_x, s_x, q_w, s_w) -> [T, out]


def quantise(row: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    scale = row.abs().max() / ((2**bits - 1) / 2)
    numbers = (row / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return numbers, scale


def check_quantise(function: Quantise) -> None:
    for row, bits in (
        (torch.tensor([1.5, -1.06, -0.46, 0.04, 0.44, 0.88]), 4),
        (torch.tensor([0.2, -6.0, 0.9, 0.5, -1.1]), 4),
        (expect.randn(64), 8),
    ):
        numbers, scale = _pair(function(row.clone(), bits))
        _check_scale(scale, row, bits)
        _check_numbers(numbers, row, bits)


def _pair(result: Any) -> tuple[Any, Any]:
    expect.something(result)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise Wrong("It should return two things: the numbers, then the scale.")
    return result


def _check_scale(scale: Any, row: Tensor, bits: int) -> None:
    if isinstance(scale, Tensor):
        expect.that(
            scale.numel() == 1, f"The scale has the shape {list(scale.shape)}. A row has a single scale."
        )
    found, largest = float(scale), float(row.abs().max())
    right = largest / ((2**bits - 1) / 2)
    mistakes = {
        "The scale is a number of steps per weight. It should be the width of a step: largest |w| / steps.": 1
        / right,
        "The scale is the largest weight without its sign removed. A large negative weight counts too.": float(
            row.max()
        )
        / ((2**bits - 1) / 2),
        f"The scale is the largest |w| alone. Divide it by {(2**bits - 1) / 2:g} steps.": largest,
        f"The grid reaches only half as far as the largest |w|. From 0 to it there are {(2**bits - 1) / 2:g} "
        f"steps, half of {2**bits - 1}.": right / 2,
        f"The steps are twice as wide as they need to be. From 0 to the largest |w| there are "
        f"{(2**bits - 1) / 2:g} of them.": right * 2,
        f"The scale is the largest |w| / {2 ** (bits - 1) - 1}. That is another convention: here it is / "
        f"{(2**bits - 1) / 2:g}.": largest / (2 ** (bits - 1) - 1),
        f"The scale is the largest |w| / {2 ** (bits - 1)}. Here it is / {(2**bits - 1) / 2:g}.": largest
        / 2 ** (bits - 1),
    }
    for text, mistaken in expect.seen(mistakes, right).items():
        expect.that(abs(found - mistaken) > 1e-6 * abs(mistaken), text)
    expect.that(abs(found - right) <= 1e-5 * right, f"The scale is {found:.6g}. It should be {right:.6g}.")


def _check_numbers(numbers: Any, row: Tensor, bits: int) -> None:
    right, scale = quantise(row, bits)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    expect.tensor(numbers, row.shape, "columns", name="`numbers`")
    steps = row / scale
    mistakes = {
        "The numbers are weights, not numbers of steps. Divide the row by the scale.": row,
        "The numbers are back in the units of the weights. Return the number of steps instead.": right
        * scale,
        "The numbers are not rounded.": steps.clamp(low, high),
        "The numbers are cut off toward 0. Round them to the nearest.": steps.trunc().clamp(low, high),
        "The numbers are rounded down. Round them to the nearest.": steps.floor().clamp(low, high),
        f"The numbers begin at 0. Here they go from {low} to {high}, so that 0 stays 0.": right - low,
    }
    found = numbers.float()
    expect.that(
        not bool((found > high).any()),
        f"A number is {int(found.max())}, above {high}. {bits} bits have {2**bits} numbers: {low} to {high}. "
        "Cut it with clamp.",
    )
    for text, mistaken in expect.seen(mistakes, right).items():
        expect.that(not torch.allclose(found, mistaken.float(), atol=1e-4), text)
    off = (found - steps.clamp(low, high)).abs() > 0.5 + 1e-3
    if off.any():
        i = int(off.nonzero()[0])
        raise Wrong(
            f"Number {i} is {float(found[i]):g}. The weight {float(row[i]):.4g} is {float(steps[i]):.4g} steps from 0."
        )


def product(q_x: Tensor, s_x: Tensor, q_w: Tensor, s_w: Tensor) -> Tensor:
    return (q_x @ q_w.T) * s_x[:, None] * s_w


def check_product(function: Product) -> None:
    q_x = torch.tensor([[127, -50, 8], [127, 50, 0], [3, -128, 64]], dtype=torch.int32)
    q_w = torch.tensor([[127, 50, -9], [-50, 127, 33], [1, 2, 100]], dtype=torch.int32)
    s_x, s_w = torch.tensor([0.01, 0.002, 0.5]), torch.tensor([0.004, 0.002, 0.25])
    sums = (q_x @ q_w.T).float()
    mistakes = {
        "These are the sums of integers. Multiply each by the scale of its token and of its row.": sums,
        "The scales of the tokens are missing.": sums * s_w,
        "The scales of the weights are missing.": sums * s_x[:, None],
        "The scales are exchanged: row t of the result belongs to token t, so its scale is s_x[t].": sums
        * s_x
        * s_w[:, None],
        "The scales of the tokens run along the columns. Row t of the result belongs to token t: s_x[:, None].": (
            sums * s_x * s_w
        ),
        "The scales of the weights run along the rows. Column o of the result belongs to row o of W.": sums
        * s_x[:, None]
        * s_w[:, None],
        "The scales are added. They must be multiplied.": sums * (s_x[:, None] + s_w),
        "The sums are divided by the scales. A number times its scale is the float.": sums
        / s_x[:, None]
        / s_w,
        "q_w is not transposed. Each row of q_w belongs to one output, so the product is q_x @ q_w.T.": (
            q_x @ q_w
        ).float()
        * s_x[:, None]
        * s_w,
        "The sums are in int8, which ends at 127, so they have overflowed. Add them in int32.": (
            q_x.to(torch.int8) @ q_w.to(torch.int8).T
        ).float()
        * s_x[:, None]
        * s_w,
    }
    right = product(q_x, s_x, q_w, s_w)
    result = function(q_x, s_x, q_w, s_w)
    if isinstance(result, Tensor):
        result = result.float()
    expect.close(result, right, "token output", mistakes=mistakes, tolerance=1e-5)
    several = function(q_x[:1], s_x[:1], q_w, s_w)
    expect.close(several, right[:1], "token output", name="the result for one token", tolerance=1e-5)


HOLES = [Hole("06.quantise", quantise, check_quantise), Hole("06.product", product, check_product)]
