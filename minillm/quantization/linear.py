"""Projections whose weights stay packed. Each calls the operation that is made for its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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


def join(parts: Sequence[Projection]) -> Projection:
    """Return one projection of the same x for all parts, in their order.

    Packed parts of one layout become one matrix. Others, such as parts with their columns in different orders (GPTQ),
    stay separate products.
    """
    packed = [part for part in parts if isinstance(part, QuantizedLinear)]
    if len(packed) < len(parts) or not all(_same_layout(packed[0], other) for other in packed[1:]):
        return Joined(list(parts)) if len(parts) > 1 else parts[0]
    weights = [part.weight for part in packed]
    zeros = [weight.zero for weight in weights if weight.zero is not None]
    biases = [part.bias for part in packed if part.bias is not None]
    joined = QuantizedWeight(
        torch.cat([weight.numbers for weight in weights]),
        torch.cat([weight.scale for weight in weights]),
        torch.cat(zeros) if zeros else None,
    )
    return QuantizedLinear(joined, torch.cat(biases) if biases else None, packed[0].kind, packed[0].order)


def _same_layout(one: QuantizedLinear, other: QuantizedLinear) -> bool:
    """Return whether two projections differ only in their numbers and in how many outputs they have."""
    same_order = one.order is other.order or (
        one.order is not None and other.order is not None and torch.equal(one.order, other.order)
    )
    return (
        same_order
        and one.kind == other.kind
        and one.weight.numbers.dtype == other.weight.numbers.dtype
        and one.weight.group_size == other.weight.group_size
        and one.weight.scale.dtype == other.weight.scale.dtype
        and (one.weight.zero is None) == (other.weight.zero is None)
        and (one.bias is None) == (other.bias is None)
    )


def with_weights(
    projection: Projection, change: Callable[[Kind, QuantizedWeight], QuantizedWeight]
) -> Projection:
    """Return the projection with `change(kind, weight)` in place of each packed weight; others are returned as is."""
    if isinstance(projection, QuantizedLinear):
        return replace(projection, weight=change(projection.kind, projection.weight))
    if isinstance(projection, Joined):
        return Joined([with_weights(part, change) for part in projection.parts])
    return projection
