"""The holes of chapter 07: taking numbers out of bytes, and a step of GPTQ."""

from collections.abc import Callable

import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.hole import Hole


def unpack(packed: Tensor, scale: float, zero: int = 8) -> Tensor:
    low = packed & 15
    high = packed >> 4
    numbers = torch.stack((low, high), dim=-1).flatten()
    return (numbers.float() - zero) * scale


def check_unpack(function: Callable[..., Tensor]) -> None:
    def values(low: Tensor, high: Tensor, zero: int = 8) -> Tensor:
        return (torch.stack((low, high), dim=-1).flatten().float() - zero) * 0.5

    packed = torch.tensor([0x5F, 0x39, 0xB2, 0x08, 0xC1], dtype=torch.uint8)
    low, high = packed & 15, packed >> 4
    mistakes = {
        "The two halves are exchanged. The first number is in the low half of its byte.": values(high, low),
        "The low half still contains the whole byte. Keep only its four lowest bits.": values(packed, high),
        "The high half is still in the high bits. Shift it down by four places.": values(low, packed & 240),
        "The high half is shifted by three places or the like. A half has four bits.": values(
            low, packed >> 3
        ),
        "Both halves are the low one.": values(low, low),
        "The mask has three bits. 15 is 1111 in binary, the four lowest bits.": values(packed & 7, high),
    }
    expect.close(function(packed, 0.5), values(low, high), "n", mistakes=mistakes)
    expect.close(function(packed, 0.5, zero=3), values(low, high, 3), "n", name="with zero=3, the result")


def roll(w: Tensor, values: Tensor, U: Tensor, j: int) -> None:
    error = (w[:, j] - values) / U[j, j]
    w[:, j + 1 :] -= torch.outer(error, U[j, j + 1 :])
    w[:, j] = values


def check_roll(function: Callable[..., None]) -> None:
    start = 3 * expect.randn(4, 6)
    inputs = expect.randn(40, 6, seed=1) @ (torch.eye(6) + 0.5)
    U = torch.linalg.cholesky(torch.linalg.inv(inputs.T @ inputs), upper=True)
    for j in (0, 2, 5):
        values = start[:, j].round()
        error = start[:, j] - values

        def after(step: Tensor, j: int = j, values: Tensor = values) -> Tensor:
            w = start.clone()
            w[:, j + 1 :] = step
            w[:, j] = values
            return w

        later, row = start[:, j + 1 :], U[j, j + 1 :]
        right = after(later - torch.outer(error / U[j, j], row))
        mistakes = {
            "The later columns have not changed. Row j of U says how far; U is 0 below its diagonal.": start.index_copy(
                1, torch.tensor([j]), values[:, None]
            ),
            "The errors are not divided by U[j, j].": after(later - torch.outer(error, row)),
            "The sign is wrong: the errors grow. Subtract.": after(later + torch.outer(error / U[j, j], row)),
            "It divides by U[j, j] twice.": after(later - torch.outer(error / U[j, j] ** 2, row)),
            "It multiplies by U[j, j]. Divide by it.": after(later - torch.outer(error * U[j, j], row)),
            "The columns move by the rounded values. They must move by the errors.": after(
                later - torch.outer(values / U[j, j], row)
            ),
            "Each later column gets the whole error. It gets its own share, U[j, k].": after(
                later - (error / U[j, j])[:, None]
            ),
        }
        w = start.clone()
        function(w, values, U, j)
        expect.that(
            w[:, :j].equal(start[:, :j]),
            "Columns before j have changed. They are fixed already: only later ones move.",
        )
        expect.close(w, right, "row column", mistakes=expect.seen(mistakes, right), name="w")


HOLES = [Hole("07.unpack", unpack, check_unpack), Hole("07.roll", roll, check_roll)]
