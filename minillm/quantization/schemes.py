"""Which scheme loads a model's projections: plain floats, floats that are quantised on the way, or a stored format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from minillm.errors import CheckpointError
from minillm.model.config_keys import refusal
from minillm.model.linear import Linear, Projection
from minillm.model.schemes import Dense, Parts, Scheme, Source
from minillm.packed import QuantizedWeight
from minillm.quantization.absmax import PER_CHANNEL, Grid, largest_group
from minillm.quantization.formats.autoawq import AutoAwq
from minillm.quantization.formats.compressed_tensors import CompressedTensors
from minillm.quantization.formats.gguf import GGUF, GgufBlocks
from minillm.quantization.formats.gptq import Gptq
from minillm.quantization.formats.parts import SOURCE
from minillm.quantization.fp8 import to_fp8
from minillm.quantization.linear import Kind, QuantizedLinear

# `LLM(quantization=...)`: the projections that it makes.
ON_THE_FLY: dict[str, Kind] = {"int8": "int8", "w8a8": "w8a8", "fp8": "w8a8_fp8", "int4": "int4"}
KEPT = ("lm_head",)  # its errors go straight into the logits, and in small models it is tied to the embedding


@dataclass(frozen=True)
class OnTheFly:
    """Load floats and quantise them at once, one projection at a time, by rounding to nearest.

    8-bit weights have one scale per row; 4-bit weights have one for each 128 columns, or fewer where 128 does not fit.
    """

    kind: Kind

    def load(self, source: Source, parts: Parts) -> Projection:
        return self.quantise(parts.names[0], Dense().load(source, parts))

    def quantise(self, name: str, projection: Projection) -> Projection:
        """Return the projection of this name with a packed weight, for `Transformer.with_projections`.

        Raises `CheckpointError` for weights that are not finite, and for a projection that is quantised already.
        """
        if name in KEPT:
            return projection
        if not isinstance(projection, Linear):
            raise CheckpointError(f"{name} is quantised already: load the model without quantization")
        try:
            weight = self._quantise(projection.weight.t().contiguous())
        except ValueError as error:
            raise CheckpointError(f"{name}: {error}") from error
        return QuantizedLinear(weight, projection.bias, self.kind)

    def _quantise(self, weight: torch.Tensor) -> QuantizedWeight:
        if self.kind == "w8a8_fp8":
            return to_fp8(weight)
        bits, group_size = (4, largest_group(weight.shape[1])) if self.kind == "int4" else (8, PER_CHANNEL)
        grid = Grid.of(weight, bits, group_size)
        return grid.pack(grid.round(weight), weight.dtype)


# `quant_method` of a quantization_config: how to read it.
FORMATS: dict[str, Callable[[Mapping[str, Any]], Scheme]] = {
    "compressed-tensors": CompressedTensors.from_config,
    "awq": AutoAwq.from_config,
    "gptq": Gptq.from_config,
}


def scheme_for(stored: Mapping[str, Any] | None, wanted: str | None) -> Scheme:
    """Return how to load a model: `stored` is its quantization_config, and `wanted` what a user asks for.

    Raises `CheckpointError` for a stored format that is not implemented, and for a model that would be quantised twice.
    The numbers of a GGUF file are unpacked if `wanted` asks for others.
    """
    if stored is None or (wanted is not None and stored.get("quant_method") == GGUF):
        return Dense() if wanted is None else OnTheFly(ON_THE_FLY[wanted])
    method = stored.get("quant_method")
    if method == GGUF:
        return GgufBlocks()
    if not isinstance(method, str) or method not in FORMATS:
        known = ", ".join(FORMATS)
        raise refusal(
            SOURCE, "quant_method", method, f"implemented: {known}; load the unquantised checkpoint"
        )
    if wanted is not None:
        raise CheckpointError(
            f"quantization={wanted!r}, and the weights of this model are stored in the format {method!r}: leave "
            "quantization out, or load the unquantised checkpoint"
        )
    return FORMATS[method](stored)
