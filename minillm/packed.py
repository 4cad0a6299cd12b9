"""`QuantizedWeight`: the matrix of a projection in numbers of 8 or 4 bits.

A number q stands for (q - zero) * scale. One scale serves a group of numbers: a part of a row, or the whole row. A row
has all weights of one output, so its memory runs along `in`, as checkpoints store it.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

ZERO_OF_INT4 = 8  # 4-bit numbers are stored as 0 to 15, and a symmetric weight has its zero at 8


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """Hold a matrix [out, in] that is multiplied as x W^T.

    `numbers` is int8 or float8_e4m3fn [out, in], or uint8 [out, in / 2] with two 4-bit numbers in a byte, the first in
    its low half. `scale` is [out, groups] in floating point, and column j belongs to group j // (in / groups). `zero`
    has the same shape; None means symmetric: a zero of 8 for 4-bit numbers, and of 0 for the others.
    """

    numbers: Tensor
    scale: Tensor
    zero: Tensor | None = None

    def __post_init__(self) -> None:
        if self.numbers.dtype not in (torch.int8, torch.float8_e4m3fn, torch.uint8):
            raise ValueError(
                f"numbers are {self.numbers.dtype}: give int8, float8_e4m3fn, or uint8 for 4 bits"
            )
        (rows, groups), (out, size_in) = self.scale.shape, self.shape
        if rows != out or not groups or size_in % groups:
            raise ValueError(
                f"scale {list(self.scale.shape)} does not fit a matrix {[out, size_in]}: it needs {out} rows, and a "
                f"number of groups that divides {size_in}"
            )
        if self.zero is not None and self.zero.shape != self.scale.shape:
            raise ValueError(
                f"zero {list(self.zero.shape)} must have the shape of scale {list(self.scale.shape)}"
            )

    @property
    def bits(self) -> int:
        """Return the bits of a number: 4 or 8."""
        return 4 if self.numbers.dtype == torch.uint8 else 8

    @property
    def shape(self) -> tuple[int, int]:
        """Return (out, in)."""
        out, columns = self.numbers.shape
        return out, columns * 8 // self.bits

    @property
    def group_size(self) -> int:
        """Return the number of columns that share a scale."""
        return self.shape[1] // self.scale.shape[1]

    @property
    def tensors(self) -> list[Tensor]:
        """Return the tensors that are in memory."""
        return [tensor for tensor in (self.numbers, self.scale, self.zero) if tensor is not None]

    @property
    def nbytes(self) -> int:
        """Return the bytes of all tensors in memory."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def to(self, device: torch.device) -> "QuantizedWeight":
        """Return the weight on a device."""
        zero = None if self.zero is None else self.zero.to(device)
        return replace(self, numbers=self.numbers.to(device), scale=self.scale.to(device), zero=zero)

    def unpacked(self) -> Tensor:
        """Return the numbers [out, in], one in each element: uint8 from 0 to 15 for 4 bits."""
        return unpack_int4(self.numbers) if self.bits == 4 else self.numbers

    def dequantise(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the matrix [out, in] that the numbers stand for."""
        q: Tensor = self.unpacked().float().unflatten(1, (-1, self.group_size))  # [out, groups, group_size]
        if self.zero is not None:
            q = q - self.zero[..., None].float()
        elif self.bits == 4:
            q = q - ZERO_OF_INT4
        weight: Tensor = q * self.scale[..., None].float()
        return weight.flatten(1).to(dtype)


def pack_int4(numbers: Tensor) -> Tensor:
    """Return numbers from 0 to 15 [..., n] as bytes [..., n / 2]; the first of two is in the low half of its byte.

    Raises `ValueError` for an odd n.
    """
    if numbers.shape[-1] % 2:
        raise ValueError(
            f"{numbers.shape[-1]} numbers of 4 bits do not fill whole bytes: give an even number"
        )
    low, high = numbers[..., ::2].to(torch.uint8), numbers[..., 1::2].to(torch.uint8)
    return low | (high << 4)


def unpack_int4(packed: Tensor) -> Tensor:
    """Return the numbers [..., 2 n] of bytes [..., n], as uint8 from 0 to 15."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)
