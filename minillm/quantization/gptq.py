"""GPTQ: round a matrix column by column, and let the columns that are still floats make up for each error.

Rounding a row w of W to q changes an output x w by x (w - q). Over inputs X [n, in] with the Hessian H = 2 X^T X / n,
the mean squared change is (w - q) H (w - q)^T / 2. After one column is rounded, the change of the later columns that
minimises this error has a closed form in the inverse of H. One Cholesky factor of the inverse holds it for all columns.

Source: Frantar et al. 2022 (arXiv 2210.17323), algorithm 1. Act-order is from the authors' code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minillm.model.linear import Linear, Projection
from minillm.model.transformer import Block
from minillm.ops import Ops
from minillm.quantization.absmax import Grid
from minillm.quantization.calibration import Stream, gram
from minillm.quantization.rounding import Rounding, floats, replaced

DAMPING = 0.01  # of the mean of H's diagonal


def hessian(x: Tensor) -> Tensor:
    """Return H = 2 X^T X / n [in, in] float32 of the inputs x [n, in]."""
    return (2 / len(x)) * gram(x)


def gptq(
    weight: Tensor,
    hessian: Tensor,
    grid: Grid,
    *,
    damping: float = DAMPING,
    act_order: bool = False,
    block_size: int = 128,
) -> Tensor:
    """Return the numbers q [out, in] on `grid` for a weight [out, in] whose inputs have this Hessian [in, in].

    `act_order` rounds the columns with the largest inputs first, when most columns can still make up for them. Groups
    and scales stay as `grid` has them ("static groups"), so no order has to be stored. A column's error reaches the
    other columns of its block at once, and the later blocks in one product, which saves time and changes nothing else.
    Columns whose inputs are always zero become zero.

    Raises `ValueError` for a Hessian of another size, with numbers that are not finite, or without an inverse.
    """
    columns, inputs = weight.shape[1], hessian.diagonal()
    if hessian.shape != (columns, columns):
        raise ValueError(f"hessian {list(hessian.shape)} does not fit a weight of {columns} columns")
    order = inputs.argsort(descending=True, stable=True) if act_order else torch.arange(columns)
    u = inverse_factor(hessian[order][:, order], damping)
    w = (
        weight.float().masked_fill(inputs == 0, 0.0).t()[order].contiguous()
    )  # [in, out]: a column is a row here
    scale, zero = grid.per_column(order)  # [in, out]
    q = torch.empty_like(w)
    for start in range(0, columns, block_size):
        end = min(start + block_size, columns)
        errors = w.new_empty(end - start, len(weight))
        for j in range(start, end):
            q[j] = ((w[j] / scale[j]).round() + zero[j]).clamp(0, 2**grid.bits - 1)
            error = (w[j] - (q[j] - zero[j]) * scale[j]) / u[j, j]  # [out]
            w[j:end] -= torch.outer(u[j, j:end], error)
            errors[j - start] = error
        w[end:] -= u[start:end, end:].t() @ errors
    return q[order.argsort()].t()


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Return the upper triangular U [in, in] float32 with U^T U = (H + damping * mean(diag H) * I)^-1.

    Row j of U, divided by U[j, j], says how much each later column changes for an error of 1 in column j. A column
    whose inputs are always zero gets an H of 1, so that it takes no part. Raises `ValueError` as `gptq`.
    """
    h = hessian.double()
    if not h.isfinite().all():
        raise ValueError("the Hessian has a number that is not finite: the calibration inputs are damaged")
    h = h + (h.diagonal() == 0).double().diag()
    h.diagonal().add_(damping * h.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(h.flip(0, 1))  # H = P L L^T P, where P reverses the order
    if failed:
        raise ValueError(
            f"the Hessian has no inverse with damping={damping}: use more calibration text or more damping"
        )
    identity = torch.eye(len(h), dtype=h.dtype, device=h.device)
    u: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False).flip(0, 1)  # P L^-1 P
    return u.float()


@dataclass
class _RoundedOnArrival:
    """A projection that is quantised when its inputs arrive: those of all calibration tokens, in one call.

    The projections before it are quantised by then, so it makes up for their errors too.
    """

    linear: Linear
    rounding: Rounding
    act_order: bool
    result: Projection | None = None

    def __call__(self, x: Tensor, ops: Ops) -> Tensor:
        weight = self.linear.weight.t()
        grid = self.rounding.grid(weight)
        q = gptq(weight, hessian(x), grid, act_order=self.act_order)
        self.result = self.rounding.projection(q, grid, self.linear.bias)
        return self.result(x, ops)


def gptq_block(
    stream: Stream, block: Block, rounding: Rounding, act_order: bool = False
) -> tuple[Block, Stream]:
    """Return a block quantised in the order in which its projections run, and the stream after the quantised block."""
    waiting = {role: _RoundedOnArrival(linear, rounding, act_order) for role, linear in floats(block).items()}
    after = stream.after(replaced(block, waiting))
    return replaced(block, {role: one.result for role, one in waiting.items() if one.result}), after
