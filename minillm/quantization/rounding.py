"""`Rounding`: to which numbers a model's matrices are rounded, and as what they come out.

Every method decides the numbers q of each weight. The rest is the same for all: the numbers stay packed, or become
floats again, in which any number of bits can be simulated. Rounding to nearest (RTN) is here too: the method of every
other method's last step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from minillm.errors import CheckpointError
from minillm.model.linear import Linear, Projection
from minillm.model.transformer import Block
from minillm.quantization.absmax import PER_CHANNEL, Grid
from minillm.quantization.linear import Kind, QuantizedLinear


@dataclass(frozen=True)
class Rounding:
    """Round to integers of `bits` bits with one scale for each `group_size` columns.

    `dtype` is that of the stored model: scales and norms are rounded to it. `kind` names the packed projection that
    comes out (`QuantizedLinear.kind`); None asks for floats.
    """

    bits: int
    group_size: int = PER_CHANNEL
    symmetric: bool = True
    dtype: torch.dtype = torch.float32
    kind: Kind | None = None

    def grid(self, weight: Tensor) -> Grid:
        """Return the grid of a weight [out, in], with scales as they will be stored. Raises as `Grid.of`."""
        return Grid.of(weight, self.bits, self.group_size, self.symmetric).with_scales_in(self.dtype)

    def nearest(self, weight: Tensor) -> Tensor:
        """Return a weight [out, in] with each number rounded to the nearest of the grid, in float32."""
        grid = self.grid(weight)
        return grid.dequantise(grid.round(weight))

    def projection(self, q: Tensor, grid: Grid, bias: Tensor | None) -> Projection:
        """Return the projection whose weight is the numbers q [out, in] of this grid."""
        if self.kind is None:
            return Linear(grid.dequantise(q).t(), bias)
        return QuantizedLinear(grid.pack(q, self.dtype), bias, self.kind)

    def rtn(self, block: Block) -> Block:
        """Return a block with every weight rounded to nearest. Raises `CheckpointError` as `floats`."""

        def rounded(linear: Linear) -> Projection:
            weight = linear.weight.t()
            grid = self.grid(weight)
            return self.projection(grid.round(weight), grid, linear.bias)

        return replaced(block, {role: rounded(linear) for role, linear in floats(block).items()})


def floats(block: Block) -> dict[str, Linear]:
    """Return the projections of a block by role: "qkv", "o", "gate_up" and "down".

    Raises `CheckpointError` for a projection that is quantised already, or that has numbers that are not finite.
    """
    found: dict[str, Linear] = {}

    def keep(role: str, projection: Projection) -> Projection:
        if not isinstance(projection, Linear):
            raise CheckpointError(f"{role} is quantised already: quantise the original model")
        if not projection.weight.isfinite().all():
            raise CheckpointError(
                f"{role} has a weight that is not finite (nan or inf): it cannot be quantised"
            )
        found[role] = projection
        return projection

    block.with_projections(keep)
    return found


def replaced(block: Block, projections: Mapping[str, Projection]) -> Block:
    """Return a block with these projections, by role, in place of its own."""
    return block.with_projections(lambda role, projection: projections.get(role, projection))
