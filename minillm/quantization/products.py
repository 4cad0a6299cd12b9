"""Packed weights and the operations that multiply them: bring the weights into the order that the operations read.

A CPU's operations are measured before they are used (cpu/quantized.py). Kernels and definitions take every weight as it
is.
"""

from collections import defaultdict
from dataclasses import dataclass

from minillm.cpu.quantized import Choice, MeasuredMatmul
from minillm.model.linear import Projection
from minillm.model.schemes import Parts, Scheme, Source
from minillm.model.transformer import Transformer
from minillm.ops import Ops
from minillm.packed import QuantizedWeight
from minillm.quantization.linear import Kind, with_weights


@dataclass(frozen=True)
class Prepared:
    """Load projections as `scheme` does, and prepare each for `ops`, so that no second copy of a model exists."""

    scheme: Scheme
    ops: Ops

    def load(self, source: Source, parts: Parts) -> Projection:
        return prepare(self.scheme.load(source, parts), self.ops)


def prepare(projection: Projection, ops: Ops) -> Projection:
    """Return the projection with its packed weights in the order that `ops` read fastest.

    The weights keep their meaning: `numbers`, `scale` and `zero` are as before, for any other operation.
    """

    def prepared(kind: Kind, weight: QuantizedWeight) -> QuantizedWeight:
        matmul = _operation(ops, kind)
        return matmul.prepare(weight) if isinstance(matmul, MeasuredMatmul) else weight

    return with_weights(projection, prepared)


def choose(model: Transformer) -> list[Choice]:
    """Measure the products of the model's packed weights, once in a process. Return what its operations use."""
    weights: dict[Kind, list[QuantizedWeight]] = defaultdict(list)

    def note(kind: Kind, weight: QuantizedWeight) -> QuantizedWeight:
        weights[kind].append(weight)
        return weight

    model.with_projections(lambda name, projection: with_weights(projection, note))
    choices = []
    for kind, packed in weights.items():
        matmul = _operation(model.ops, kind)
        if isinstance(matmul, MeasuredMatmul):
            choices += matmul.choose(packed, model.dtype)
    return choices


def _operation(ops: Ops, kind: Kind) -> object:
    return getattr(ops, f"{kind}_matmul")
