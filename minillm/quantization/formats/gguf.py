"""Three block types of GGUF files that fit a packed weight. A block has 32 weights of a row and a scale d in float16.

    q4_0    d, then 16 bytes: w = d (q - 8)
    q4_1    d, m, then 16 bytes: w = d q + m = d (q - zero) with zero = -m / d
    q8_0    d, then 32 signed bytes: w = d q

The low halves of the 16 bytes are weights 0 to 15 of the block, and the high halves are weights 16 to 31. Other types
are unpacked when they are loaded.
Source: `block_q4_0` and others in `ggml/src/ggml-common.h` of https://github.com/ggml-org/llama.cpp
"""

from collections.abc import Callable, Set

import torch
from torch import Tensor

from minillm.model.linear import Projection
from minillm.model.schemes import Parts, Source, joined_bias
from minillm.packed import QuantizedWeight, pack_int4
from minillm.quantization.formats.parts import load_each
from minillm.quantization.linear import QuantizedLinear

GGUF = "gguf"  # the `quant_method` of such a file
BLOCK = 32
HALF = 2  # bytes of a float16


class GgufBlocks:
    """Load each projection in its own blocks if they fit a packed weight, and in floats if not."""

    def load(self, source: Source, parts: Parts) -> Projection:
        return load_each(source, parts, lambda name: bool(_types(source, name)), _load_packed)


def _types(source: Source, name: str) -> Set[str]:
    """Return the type of a projection's blocks, or nothing if it is not one of `TYPES`."""
    return source.suffixes(name) & TYPES.keys()


def _load_packed(source: Source, part: Parts) -> Projection:
    (name,), (out,) = part.names, part.sizes_out
    (kind,) = _types(source, name)
    block_bytes, unpack = TYPES[kind]
    rows = source.stored(f"{name}.{kind}", (out, part.size_in // BLOCK * block_bytes), (torch.uint8,))
    weight = unpack(rows.unflatten(1, (-1, block_bytes)))  # from [out, blocks, bytes]
    return QuantizedLinear(
        weight.to(source.device), joined_bias(source, part), "int8" if weight.bits == 8 else "int4"
    )


def _q4_0(blocks: Tensor) -> QuantizedWeight:
    return QuantizedWeight(_int4(blocks[..., HALF:]), _half(blocks, 0))


def _q4_1(blocks: Tensor) -> QuantizedWeight:
    scale, lowest = _half(blocks, 0), _half(blocks, 1)
    numbers = _int4(blocks[..., 2 * HALF :])
    # A block of equal weights has d = 0. Its weights are m = (0 - (-1)) m.
    flat = scale == 0
    numbers = numbers.unflatten(1, (-1, BLOCK // 2)).masked_fill(flat[..., None], 0).flatten(1)
    zero = (-lowest.float() / scale.float()).where(~flat, -1.0)
    return QuantizedWeight(numbers, scale.where(~flat, lowest), zero)


def _q8_0(blocks: Tensor) -> QuantizedWeight:
    return QuantizedWeight(blocks[..., HALF:].flatten(1).view(torch.int8), _half(blocks, 0))


def _half(blocks: Tensor, index: int) -> Tensor:
    """Return the float16 number `index` of each block, [out, blocks]."""
    return blocks[..., index * HALF : (index + 1) * HALF].contiguous().view(torch.float16)[..., 0]


def _int4(halves: Tensor) -> Tensor:
    """Return the numbers of blocks [out, blocks, 16] two by two in a byte, [out, in / 2]."""
    return pack_int4(torch.cat((halves & 15, halves >> 4), dim=-1)).flatten(1)


TYPES: dict[str, tuple[int, Callable[[Tensor], QuantizedWeight]]] = {  # bytes of a block
    "q4_0": (HALF + BLOCK // 2, _q4_0),
    "q4_1": (2 * HALF + BLOCK // 2, _q4_1),
    "q8_0": (HALF + BLOCK, _q8_0),
}
