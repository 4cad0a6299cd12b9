"""The steps that all formats share: parts that are loaded one by one, words of 32 bits, and columns in another order.

A format stores each part of a projection (q, k and v, or gate and up) in tensors of its own. Its scheme loads one part,
and `load_each` joins those that fit.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minillm.errors import CheckpointError
from minillm.model.linear import Projection
from minillm.model.schemes import Dense, Parts, Source
from minillm.packed import QuantizedWeight, pack_int4, unpack_int4
from minillm.quantization.linear import join

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
WORD = (torch.int32,)
SOURCE = "config.json: quantization_config"  # for messages
BITS_OF_WORD = 32


def load_each(
    source: Source,
    parts: Parts,
    is_packed: Callable[[str], bool],
    load_packed: Callable[[Source, Parts], Projection],
) -> Projection:
    """Load the parts that are packed one by one and the others as floats, and return one projection of all of them.

    Raises `CheckpointError` for a packed matrix of a family that stores its matrices as [in, out].
    """
    if not any(map(is_packed, parts.names)):
        return Dense().load(source, parts)
    if parts.transposed:
        raise CheckpointError(
            f"{parts.names[0]!r} is a matrix [in, out] in this family, and quantised formats are implemented for "
            "[out, in]: load the unquantised checkpoint"
        )
    return join(
        [
            load_packed(source, part) if is_packed(part.names[0]) else Dense().load(source, part)
            for part in parts.each()
        ]
    )


def num_groups(part: Parts, group_size: int | None) -> int:
    """Return how many groups a row has; None or -1 means one. Raises `CheckpointError` if the size does not divide."""
    if group_size in (None, -1):
        return 1
    if group_size < 1 or part.size_in % group_size:
        raise CheckpointError(
            f"{part.names[0]!r} has rows of {part.size_in} weights, and group_size={group_size} does not divide them: "
            "load a checkpoint with a group size that does"
        )
    return part.size_in // group_size


def num_words(count: int, bits: int) -> int:
    """Return the words that hold `count` numbers."""
    return -(-count * bits // BITS_OF_WORD)


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """Return the numbers of words [..., n], from the lowest bits up: uint8 [..., n * 32 / bits]."""
    as_bytes: Tensor = words.flatten().view(torch.uint8).unflatten(0, (*words.shape[:-1], -1))
    return unpack_int4(as_bytes) if bits == 4 else as_bytes


def packed_weight(numbers: Tensor, scale: Tensor, zero: Tensor | None, bits: int) -> QuantizedWeight:
    """Return numbers from 0 to 2^bits - 1 [out, in] in memory, with `scale` and `zero` [out, groups].

    A zero that is 2^(bits - 1) everywhere is left out: the weight is symmetric.
    """
    middle = 1 << (bits - 1)
    if zero is not None:
        zero = None if bool((zero == middle).all()) else zero.to(scale.dtype)
    if bits == 4:
        return QuantizedWeight(pack_int4(numbers), scale, zero)
    signed = (numbers ^ middle).view(torch.int8)  # flipping the highest bit subtracts 128
    return QuantizedWeight(signed, scale, None if zero is None else zero - middle)


def column_order(g_idx: Tensor, groups: int, name: str) -> Tensor | None:
    """Return the order [in] that brings the columns of each group together; None if they are in order already.

    `g_idx` [in] is the group of each column (GPTQ's act-order). Raises `CheckpointError` for a group that does not
    exist, and for groups of different sizes.
    """
    lowest, highest = int(g_idx.min()), int(g_idx.max())
    if lowest < 0 or highest >= groups:
        wrong = lowest if lowest < 0 else highest
        raise CheckpointError(
            f"{name!r} has a column of group {wrong}, and its groups are 0 to {groups - 1}: the file is damaged, so "
            "download it again"
        )
    sizes = torch.bincount(g_idx.long(), minlength=groups)
    if bool((sizes != len(g_idx) // groups).any()):
        raise CheckpointError(
            f"{name!r} has groups of {int(sizes.min())} to {int(sizes.max())} columns, and only equal groups are "
            "implemented: load another checkpoint"
        )
    order = torch.argsort(g_idx, stable=True)
    return None if torch.equal(order, torch.arange(len(order))) else order
