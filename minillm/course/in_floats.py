"""A model in floats, whatever its file stores: a chapter that rounds weights has to begin with floats."""

from typing import Any

import torch

from minillm.llm import LLM
from minillm.model.linear import Linear, Projection
from minillm.quantization.linear import Joined, QuantizedLinear


def llm_in_floats(model: str, **engine_arguments: Any) -> LLM:
    """Return `LLM(model, dtype="float32")` with all matrices in floats, also those that the file stores in fewer bits.

    A GGUF file in 4 bits is an example. Its floats are the values that the 4-bit numbers mean.
    """
    llm = LLM(model, dtype="float32", **engine_arguments)
    packed: list[str] = []

    def change(name: str, projection: Projection) -> Projection:
        if not isinstance(projection, Linear):
            packed.append(name)
        return in_floats(projection)

    floats = llm.model.with_projections(change)
    if packed:
        llm.model = floats
        llm.rebuild()
    return llm


def in_floats(projection: Projection) -> Projection:
    """Return a projection of floats that computes the same; one that is neither packed nor joined is returned as is."""
    if isinstance(projection, QuantizedLinear):
        weight = projection.weight.dequantise()
        if projection.order is not None:
            weight = torch.empty_like(weight).index_copy_(1, projection.order, weight)
        return Linear(weight.t(), projection.bias)
    if isinstance(projection, Joined):
        parts = [in_floats(part) for part in projection.parts]
        linears = [part for part in parts if isinstance(part, Linear)]
        if len(linears) < len(parts):
            return projection
        biases = [part.bias for part in linears if part.bias is not None]
        return Linear(
            torch.cat([part.weight for part in linears], dim=1), torch.cat(biases) if biases else None
        )
    return projection
