"""A projection: the matrix product y = x W + b of one layer, with its weights.

Matrix products take nine tenths of a model's arithmetic and of the bytes that a token waits for. A projection holds
weights only. It computes with the operations that it is given, so one set of weights serves engines with different
operations, and `minillm.swap(linear=...)` reaches every product.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from minillm.ops import Ops

Projection = Callable[[Tensor, Ops], Tensor]  # [T, in] -> [T, out]: a Linear, or an object that replaces it


@dataclass(slots=True)
class Linear:
    """y = x W + b in floating point. `weight` is [in, out], in the memory order that the device reads faster."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor, ops: Ops) -> Tensor:
        return ops.linear(x, self.weight, self.bias)
