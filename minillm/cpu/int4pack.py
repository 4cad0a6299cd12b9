"""4-bit weights in the memory order that PyTorch's product for them on a CPU needs.

`torch.ops.aten._weight_int4pack_mm_for_cpu` reads the weights of a block of outputs column by column, so that one
vector register holds one column of the block:

    byte [k, j] of a block    outputs j (low half) and j + 32 (high half) of column k, for a block of 64 outputs

The size of a block and the pairs of a byte depend on the processor's vectors. The operation that packs does not tell
them, so `layout` finds them by packing known numbers. The bytes are the same as before in another order: a weight is
kept once, and `unpacked` brings the numbers back exactly.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from minillm.packed import ZERO_OF_INT4, QuantizedWeight, pack_int4

GROUPS = (256, 128, 64, 32)  # the group sizes that the product knows
OUTPUTS = 16  # it needs a multiple of this many outputs


@dataclass(frozen=True, slots=True)
class Layout:
    """Blocks of `block` outputs. A byte holds two of them: j and j + block / 2 if `halves`, else 2 j and 2 j + 1.

    The outputs after the last whole block are a smaller block, always with 2 j and 2 j + 1 in a byte.
    """

    block: int
    halves: bool

    def numbers(self, packed: Tensor, outputs: slice, size_in: int) -> Tensor:
        """Return some outputs' numbers as [in, outputs] uint8, a view or copy of `packed` [out, in / 2].

        `outputs` are whole blocks, or end with the last output.
        """
        rows = packed[outputs]
        whole = len(rows) // self.block * self.block
        blocks = rows[:whole].reshape(-1, size_in, self.block // 2).transpose(0, 1)  # [in, blocks, block / 2]
        low_high = (blocks & 15, blocks >> 4)
        pairs = torch.cat(low_high, -1) if self.halves else torch.stack(low_high, -1)
        if whole == len(rows):
            return pairs.reshape(size_in, -1)
        rest = rows[whole:].reshape(size_in, -1)  # [in, rest / 2]
        rest = torch.stack((rest & 15, rest >> 4), -1).flatten(1)
        return torch.cat((pairs.reshape(size_in, -1), rest), 1)


class BlockedWeight(QuantizedWeight):
    """Hold a 4-bit weight in the order of the product, with the scales and zeros that the product reads.

    It is the same weight as before: `numbers` and `unpacked` return the usual order, converted at every call.
    """

    blocked: Tensor  # [out, in / 2] uint8
    scales_and_zeros: Tensor  # [in / op_group, out, 2] bfloat16: a number stands for (q - 8) * scale + zero
    op_group: int

    def __init__(self, blocked: Tensor, scale: Tensor, zero: Tensor | None = None) -> None:
        size_in, num_groups = 2 * blocked.shape[1], scale.shape[1]
        op_group = _op_group(size_in // num_groups)
        assert op_group is not None
        zeros = torch.zeros_like(scale) if zero is None else (ZERO_OF_INT4 - zero.float()) * scale.float()
        groups = torch.stack((scale.float(), zeros.float()), -1).to(torch.bfloat16)  # [out, groups, 2]
        groups = groups.repeat_interleave(size_in // op_group // num_groups, dim=1)
        for name, value in (
            ("blocked", blocked),
            ("scales_and_zeros", groups.transpose(0, 1).contiguous()),
            ("op_group", op_group),
            ("scale", scale),
            ("zero", zero),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, weight: QuantizedWeight) -> "BlockedWeight":
        """Return the weight in this order. `fits(weight)` must be true."""
        return cls(_pack(weight.unpacked()), weight.scale, weight.zero)

    @property
    def numbers(self) -> Tensor:
        """Return the numbers as `QuantizedWeight` has them, [out, in / 2]."""
        return pack_int4(self.unpacked())

    @property
    def bits(self) -> int:
        return 4

    @property
    def shape(self) -> tuple[int, int]:
        out, half = self.blocked.shape
        return out, 2 * half

    @property
    def tensors(self) -> list[Tensor]:
        kept = (self.blocked, self.scales_and_zeros, self.scale, self.zero)
        return [tensor for tensor in kept if tensor is not None]

    def unpacked(self) -> Tensor:
        return self.columns(slice(None)).t().contiguous()

    def columns(self, outputs: slice) -> Tensor:
        """Return the numbers of some outputs, [in, outputs] uint8; see `Layout.numbers`."""
        found = layout()
        assert found is not None
        return found.numbers(self.blocked, outputs, self.shape[1])

    def matmul(self, x: Tensor) -> Tensor:
        """Return x W^T [T, out] for x [T, in], both in bfloat16."""
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x, self.blocked, self.op_group, self.scales_and_zeros
        )
        return y


def fits(weight: QuantizedWeight) -> bool:
    """Return whether the product exists here and can take this weight, so that `BlockedWeight.of(weight)` works."""
    return (
        weight.bits == 4
        and weight.shape[0] % OUTPUTS == 0
        and _op_group(weight.group_size) is not None
        and layout() is not None
    )


def _op_group(group_size: int) -> int | None:
    """Return the largest group size of the product that divides the weight's, or None."""
    return next((size for size in GROUPS if group_size % size == 0), None)


@cache
def layout() -> Layout | None:
    """Return the layout on this processor, or None if the product is missing or its layout is not one we know."""
    if not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
        return None
    size_in = 32
    generator = torch.Generator().manual_seed(0)
    for candidate in (Layout(block, halves) for block in (64, 32, 16, 128) for halves in (True, False)):
        # Three whole blocks, and each size of a last block.
        for rest in range(0, candidate.block, OUTPUTS):
            out = 3 * candidate.block + rest
            numbers = torch.randint(16, (out, size_in), dtype=torch.uint8, generator=generator)
            if not torch.equal(candidate.numbers(_pack(numbers), slice(None), size_in).t(), numbers):
                break
        else:
            return candidate
    return None


def _pack(numbers: Tensor) -> Tensor:
    """Return numbers from 0 to 15 [out, in] in the order of the product, as bytes [out, in / 2]."""
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers.int(), 1)
    return packed
