"""Rounding to the nearest number of a grid (RTN): the base of every method here.

A grid has 2^b numbers at equal distances, the scale. It covers a group of weights: a part of a row, a row (channel) or
the whole matrix (tensor). A symmetric grid reaches as far as the largest |w|; an asymmetric one reaches from the
smallest to the largest w, which needs a second number, the zero.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minillm.packed import QuantizedWeight, pack_int4

PER_TENSOR, PER_CHANNEL = 0, -1  # group sizes with a meaning


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that each group of a matrix [out, in] may use: (q - zero) * scale for q from 0 to 2^bits - 1.

    `scale` and `zero` are [out, groups] float32. A symmetric grid has its zero at 2^(bits - 1).
    """

    bits: int
    scale: Tensor
    zero: Tensor
    symmetric: bool = True

    @classmethod
    def of(cls, weight: Tensor, bits: int, group_size: int = PER_CHANNEL, symmetric: bool = True) -> "Grid":
        """Return the grid that just covers a weight [out, in], in groups of `group_size` columns.

        `PER_CHANNEL` takes a whole row as a group, and `PER_TENSOR` the whole matrix. Raises `ValueError` for bits
        outside 2 to 8, for a group size that does not divide `in`, and for weights that are not finite.
        """
        if not 2 <= bits <= 8:
            raise ValueError(f"bits={bits}: give 2 to 8")
        lowest, highest = _extremes(_in_groups(weight, group_size), group_size == PER_TENSOR)
        if not (lowest.isfinite() & highest.isfinite()).all():
            raise ValueError(
                "the weight has a number that is not finite (nan or inf): it cannot be quantised"
            )
        middle, steps = 2.0 ** (bits - 1), 2.0**bits - 1
        if symmetric:
            scale = torch.maximum(highest, -lowest) / (steps / 2)
            zero = torch.full_like(scale, middle)
        else:
            scale = (highest - lowest) / steps
            zero = (-lowest / scale.where(scale > 0, 1.0)).round().clamp(0, steps)
        smallest = torch.finfo(torch.float32).tiny  # a group of zeros: any scale gives zeros
        return cls(bits, scale.clamp_min(smallest), zero, symmetric)

    def with_scales_in(self, dtype: torch.dtype) -> "Grid":
        """Return the grid with scales that `dtype` can store, so that what is rounded now is what is read later."""
        limits = torch.finfo(dtype)
        return replace(self, scale=self.scale.to(dtype).float().clamp(limits.tiny, limits.max))

    def per_column(self, order: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scale and the zero [in, out] of each column, in the given order [in]: those of its group."""
        group = order // (len(order) // self.scale.shape[1])
        return self.scale.t()[group], self.zero.t()[group]

    def round(self, weight: Tensor) -> Tensor:
        """Return the nearest number of the grid for each weight [out, in]: float32 integers from 0 to 2^bits - 1."""
        groups: Tensor = weight.float().unflatten(1, (self.scale.shape[1], -1))
        q = (groups / self.scale[..., None]).round() + self.zero[..., None]
        return q.clamp(0, 2**self.bits - 1).flatten(1)

    def dequantise(self, q: Tensor) -> Tensor:
        """Return what the numbers q [out, in] of the grid stand for, in float32."""
        groups: Tensor = q.float().unflatten(1, (self.scale.shape[1], -1))
        return ((groups - self.zero[..., None]) * self.scale[..., None]).flatten(1)

    def pack(self, q: Tensor, scale_dtype: torch.dtype = torch.float32) -> QuantizedWeight:
        """Return the numbers q [out, in] in memory, 4 or 8 bits each. Raises `ValueError` for other bits."""
        scale = self.scale.to(scale_dtype)
        if self.bits == 4:
            return QuantizedWeight(pack_int4(q), scale, None if self.symmetric else self.zero)
        if self.bits != 8:
            raise ValueError(
                f"numbers of {self.bits} bits have no packed form here: simulate them, or use 4 or 8"
            )
        zero = None if self.symmetric else self.zero - 128  # int8 is signed: -128 to 127
        return QuantizedWeight((q - 128).to(torch.int8), scale, zero)


def fake_quantise(weight: Tensor, bits: int, group_size: int = PER_CHANNEL, symmetric: bool = True) -> Tensor:
    """Return a weight [out, in] rounded to its grid, in float32: what a model computes with after quantisation."""
    grid = Grid.of(weight, bits, group_size, symmetric)
    return grid.dequantise(grid.round(weight))


def largest_group(size_in: int, wanted: int = 128) -> int:
    """Return the largest group size up to `wanted` that divides `size_in`: 128, then 64, 32, 16, or the whole row."""
    return next(
        (size for size in (wanted, 64, 32, 16) if size <= wanted and size_in % size == 0), PER_CHANNEL
    )


def _in_groups(weight: Tensor, group_size: int) -> Tensor:
    """Return the weight as [out, groups, columns]."""
    if weight.ndim != 2:
        raise ValueError(f"a weight {list(weight.shape)} must be a matrix [out, in]")
    size = weight.shape[1] if group_size in (PER_CHANNEL, PER_TENSOR) else group_size
    if size < 1 or weight.shape[1] % size:
        raise ValueError(
            f"group_size={group_size} does not divide the {weight.shape[1]} columns of this weight: give a divisor, "
            f"or {PER_CHANNEL} for one scale per row"
        )
    groups: Tensor = weight.float().unflatten(1, (-1, size))
    return groups


def _extremes(groups: Tensor, per_tensor: bool) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest number of each group [out, groups]. Zero is always between them."""
    lowest, highest = groups.amin(-1).clamp_max(0), groups.amax(-1).clamp_min(0)
    if per_tensor:
        lowest, highest = lowest.amin().expand_as(lowest), highest.amax().expand_as(highest)
    return lowest, highest
