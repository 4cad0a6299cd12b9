"""The second half of a decoder layer: the MLP, which transforms each token by itself."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from minillm.model.linear import Projection
from minillm.ops import Ops

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


class Mlp(Protocol):
    """The MLP of a layer, called as `mlp(x, ops)`: [T, hidden] -> [T, hidden]."""

    def __call__(self, x: Tensor, ops: Ops) -> Tensor: ...

    def with_projections(self, change: Callable[[str, Projection], Projection]) -> "Mlp":
        """Return a new MLP with `change(role, projection)` in place of each projection; a role is a field's name."""
        ...


@dataclass(slots=True)
class DenseMlp:
    """Two matrices with an activation between them, or SwiGLU (Shazeer 2020, arXiv 2002.05202) if it is None.

    `gate_up` is [hidden, 2 M] for SwiGLU, with gate and up joined along `out`; otherwise it is up alone, [hidden, M].
    """

    gate_up: Projection
    down: Projection
    activation: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x: Tensor, ops: Ops) -> Tensor:
        h = self.gate_up(x, ops)  # [T, 2 M] or [T, M]
        h = ops.swiglu(h) if self.activation is None else self.activation(h)  # [T, M]
        return self.down(h, ops)

    def with_projections(self, change: Callable[[str, Projection], Projection]) -> "DenseMlp":
        return replace(self, gate_up=change("gate_up", self.gate_up), down=change("down", self.down))
