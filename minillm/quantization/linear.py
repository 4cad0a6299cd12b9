"""Projections whose weights stay packed. Each calls the operation that is made for its numbers."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minillm.model.linear import Projection
from minillm.ops import Ops, QuantizedMatmul
from minillm.packed import QuantizedWeight

Kind = Literal["int8", "int4", "fp8", "w8a8", "w8a8_fp8"]


@dataclass(slots=True)
class QuantizedLinear:
    """y = x W^T + b with a packed weight; `kind` names the operation: "int4" is `ops.int4_matmul`.

    `order` [in] is the column of x that belongs to each column of the weight (GPTQ's act-order); None means the same.
    """

    weight: QuantizedWeight
    bias: Tensor | None
    kind: Kind
    order: Tensor | None = None

    def __call__(self, x: Tensor, ops: Ops) -> Tensor:
        matmul: QuantizedMatmul = getattr(ops, f"{self.kind}_matmul")
        return matmul(x if self.order is None else x.index_select(1, self.order), self.weight, self.bias)


@dataclass(slots=True)
class Joined:
    """Several projections of the same x whose outputs lie side by side, for parts that do not fit in one matrix."""

    parts: list[Projection]

    def __call__(self, x: Tensor, ops: Ops) -> Tensor:
        return torch.cat([part(x, ops) for part in self.parts], dim=1)
