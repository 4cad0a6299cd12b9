"""The methods of quantisation by name, the settings that each accepts, and their simulation in floats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from minillm.config import ModelConfig
from minillm.model.linear import Linear, Projection
from minillm.model.transformer import Block, Transformer
from minillm.quantization.absmax import PER_CHANNEL
from minillm.quantization.awq import awq_block
from minillm.quantization.calibration import Stream
from minillm.quantization.fp8 import to_fp8
from minillm.quantization.gptq import gptq_block
from minillm.quantization.linear import Kind, QuantizedLinear
from minillm.quantization.mx import mxfp4, nvfp4
from minillm.quantization.rounding import Rounding, floats, replaced
from minillm.quantization.smoothquant import smoothquant_block

GROUP_SIZES = (128, 64, 32)  # in the order of preference


@dataclass(frozen=True)
class Method:
    """A way to quantise a block, from its weights alone or from the activations of a calibration text too.

    `kinds` are the packed projections that come out, by their number of bits; a method without any is simulated only.
    `grouped` methods have a scale for each group of columns and also simulate other numbers of bits. A `sequential`
    method passes the text on through the quantised layers, and the others through the float ones.
    """

    from_weights: Callable[[Block, Rounding], Block] | None = None
    from_text: Callable[[Stream, Block, Rounding], tuple[Block, Stream]] | None = None
    kinds: Mapping[int, Kind] = field(default_factory=dict)
    grouped: bool = False
    sequential: bool = False


def _rtn(block: Block, rounding: Rounding) -> Block:
    return rounding.rtn(block)


def _each(
    change: Callable[[Tensor, Rounding, Tensor | None], Projection],
) -> Callable[[Block, Rounding], Block]:
    """Return a method that changes each weight [out, in] by itself."""

    def changed(block: Block, rounding: Rounding) -> Block:
        linears = floats(block).items()
        return replaced(block, {role: change(one.weight.t(), rounding, one.bias) for role, one in linears})

    return changed


def _fp8(weight: Tensor, rounding: Rounding, bias: Tensor | None) -> Projection:
    return QuantizedLinear(to_fp8(weight.to(rounding.dtype)), bias, "w8a8_fp8")


_PACKED: dict[int, Kind] = {4: "int4", 8: "int8"}
METHODS = {
    "rtn": Method(_rtn, kinds=_PACKED, grouped=True),
    "gptq": Method(from_text=gptq_block, kinds=_PACKED, grouped=True, sequential=True),
    "awq": Method(from_text=awq_block, kinds=_PACKED, grouped=True),
    "int8": Method(_rtn, kinds={8: "int8"}),
    "w8a8": Method(_rtn, kinds={8: "w8a8"}),
    "smoothquant": Method(from_text=smoothquant_block, kinds={8: "w8a8"}),
    "fp8": Method(_each(_fp8), kinds={8: "w8a8_fp8"}),
    "mxfp4": Method(_each(lambda weight, _, bias: Linear(mxfp4(weight).t(), bias))),
    "nvfp4": Method(_each(lambda weight, _, bias: Linear(nvfp4(weight).t(), bias))),
}


@dataclass(frozen=True)
class Recipe:
    """Hold a method and its settings for one model. `packed` is False for a simulation."""

    name: str
    method: Method
    bits: int
    group_size: int
    dtype: torch.dtype
    packed: bool

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        name: str,
        bits: int | None = None,
        group_size: int | None = None,
        act_order: bool = False,
        *,
        packed: bool,
    ) -> "Recipe":
        """Return a recipe with defaults for what is None.

        `bits` are 4 for a method with groups, and 8 for the others. `group_size` is the largest of 128, 64 and 32 that
        divides all columns of the model; for 8 bits it is a whole row (-1). Raises `ValueError` for settings that the
        method does not have, or that do not fit the model.
        """
        if name not in METHODS:
            raise ValueError(f"method={name!r}: give one of {', '.join(METHODS)}")
        method = METHODS[name]
        if packed and not method.kinds:
            raise ValueError(
                f"method={name!r} is simulated only, and has no file format here: give another method"
            )
        if act_order:
            if name != "gptq":
                raise ValueError(
                    f"act_order belongs to method='gptq', and the method is {name!r}: leave it out"
                )
            method = replace(method, from_text=partial(gptq_block, act_order=True))
        bits = _bits(name, method, bits, packed)
        return cls(
            name, method, bits, _group_size(name, method, bits, group_size, config), dtype_of(config), packed
        )

    @property
    def rounding(self) -> Rounding:
        """Return how the method rounds weights to integers."""
        kind = self.method.kinds.get(self.bits)
        if not self.packed and kind in ("int4", "int8"):
            kind = None  # activations stay floats, so floats simulate it all
        return Rounding(self.bits, self.group_size, dtype=self.dtype, kind=kind)

    def apply(self, stream: Stream | None, block: Block) -> tuple[Block, Stream | None]:
        """Return a float block quantised, and the stream after it. A method that needs no text needs no stream."""
        if self.method.from_weights is not None:
            return self.method.from_weights(block, self.rounding), stream
        assert self.method.from_text is not None and stream is not None
        return self.method.from_text(stream, block, self.rounding)


def dtype_of(config: ModelConfig) -> torch.dtype:
    """Return the dtype in which a model is stored."""
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype


def _bits(name: str, method: Method, bits: int | None, packed: bool) -> int:
    known = list(method.kinds) or [4]
    if bits is None:
        return known[0]
    if method.grouped and not packed:
        known = list(range(2, 9))
    if bits not in known:
        hint = ". Other numbers of bits are simulated only (`simulate`)" if method.grouped and packed else ""
        raise ValueError(f"bits={bits}: method={name!r} has {' or '.join(map(str, known))}{hint}")
    return bits


def _group_size(name: str, method: Method, bits: int, group_size: int | None, config: ModelConfig) -> int:
    sizes = {config.hidden_size, config.q_size, config.intermediate_size}  # the columns of all matrices
    if not method.grouped:
        if group_size is not None:
            raise ValueError(
                f"group_size={group_size}: method={name!r} has no groups to choose: leave it out"
            )
        return PER_CHANNEL
    fitting = [size for size in GROUP_SIZES if all(columns % size == 0 for columns in sizes)]
    if group_size is None:
        return PER_CHANNEL if bits == 8 or not fitting else fitting[0]
    if group_size == PER_CHANNEL:
        return group_size
    uneven = [columns for columns in sizes if group_size < 1 or columns % group_size]
    if uneven or group_size * bits % 8:
        fits = f"give {' or '.join(map(str, fitting))}, or" if fitting else "give"
        raise ValueError(
            f"group_size={group_size} does not divide the {max(uneven, default=group_size)} columns of a matrix into "
            f"groups of whole bytes: {fits} {PER_CHANNEL} for one scale per row"
        )
    return group_size


def simulate(
    model: Transformer,
    method: str,
    bits: int | None = None,
    group_size: int | None = None,
    windows: Sequence[Sequence[int]] = (),
    act_order: bool = False,
) -> Transformer:
    """Return a model of float32 that computes as if it were quantised, for any method and 2 to 8 bits.

    Weights are floats with the values that the numbers stand for. Methods that quantise activations too get packed
    projections, which do it. `windows` is the calibration text in tokens, for the methods that need one. Raises
    `ValueError` for settings that the method does not have, and for a missing text.
    """
    recipe = Recipe.of(model.config, method, bits, group_size, act_order, packed=False)
    stream = Stream.of(model, windows) if recipe.method.from_text is not None else None
    blocks = []
    with torch.inference_mode():
        for block in model.weights.blocks:
            block, stream = recipe.apply(stream, block)
            blocks.append(block)
    return model.with_blocks(lambda layer, _: blocks[layer])
