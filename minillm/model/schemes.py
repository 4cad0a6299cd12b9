"""Schemes: the ways in which checkpoints store one projection in several tensors.

A model multiplies once, but a checkpoint may hold several matrices for it: q, k and v, or gate and up. These are the
parts of one projection. A scheme knows the tensors of each part, reads them and returns the joined projection.
"""

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from minillm.errors import CheckpointError
from minillm.model.linear import Linear, Projection

STRIP = 256  # rows transposed at a time


@dataclass(frozen=True, slots=True)
class Parts:
    """The matrices of one projection as config.json describes them, in the order in which they are joined.

    `names` are the checkpoint's, without a suffix such as ".weight". `transposed`: stored as [in, out].
    """

    names: tuple[str, ...]
    size_in: int
    sizes_out: tuple[int, ...]
    bias: bool = False
    transposed: bool = False

    def each(self) -> "list[Parts]":
        """Return the parts one by one, for schemes that read each by itself."""
        return [
            replace(self, names=(name,), sizes_out=(size,))
            for name, size in zip(self.names, self.sizes_out, strict=True)
        ]


class Source(Protocol):
    """The tensors of a checkpoint, and where a model wants its weights."""

    device: torch.device
    dtype: torch.dtype

    def stored(self, name: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> Tensor:
        """Return the tensor as it is stored, on the CPU. Raise CheckpointError if it is missing or differs."""
        ...

    def suffixes(self, name: str) -> Set[str]:
        """Return each X of the checkpoint's tensors `name.X`."""
        ...


class Scheme(Protocol):
    """A way to store projections.

    `load` reads every tensor of the parts, because the loader refuses a checkpoint with tensors that were not read. It
    returns one projection even for parts that cannot be joined into one matrix. It raises CheckpointError for parts
    that it cannot read, such as transposed ones in a packed format.
    """

    def load(self, source: Source, parts: Parts) -> Projection: ...


class Dense:
    """One matrix of floating-point numbers per part, `weight`, and a vector `bias` where config.json asks for one."""

    dtypes: ClassVar = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

    def load(self, source: Source, parts: Parts) -> Linear:
        """Join the parts along `out`.

        On a CPU the memory runs along `out`: the product of a single token then reads whole rows, 10-30 % faster. A
        GPU's library wants it along `in`.
        """
        weights = self._stored_weights(source, parts)  # an absurd size is refused before memory is reserved
        on_cpu, total = source.device.type == "cpu", sum(parts.sizes_out)
        shape = (parts.size_in, total) if on_cpu else (total, parts.size_in)
        memory = torch.empty(shape, dtype=source.dtype, device=source.device)
        joined = memory if on_cpu else memory.t()  # [in, out] either way
        for target, weight in zip(joined.split(parts.sizes_out, dim=1), weights, strict=True):
            if parts.transposed or not on_cpu:
                target.copy_(weight if parts.transposed else weight.t())
            else:
                copy_transposed(target, weight)
        return Linear(joined, joined_bias(source, parts))

    def _stored_weights(self, source: Source, parts: Parts) -> list[Tensor]:
        for name in parts.names:
            others = source.suffixes(name) - {"bias"}
            if others and "weight" not in others:
                raise CheckpointError(
                    f"the checkpoint stores {name!r} as {', '.join(sorted(others))}, not as one float matrix "
                    "'weight', and no quantization_config covers it: load the unquantised checkpoint"
                )
        shapes = [
            (parts.size_in, size) if parts.transposed else (size, parts.size_in) for size in parts.sizes_out
        ]
        return [
            source.stored(f"{name}.weight", shape, self.dtypes)
            for name, shape in zip(parts.names, shapes, strict=True)
        ]


def joined_bias(source: Source, parts: Parts) -> Tensor | None:
    """Return the biases of all parts in one vector [out]; None if config.json asks for none."""
    if not parts.bias:
        return None
    bias = torch.empty(sum(parts.sizes_out), dtype=source.dtype, device=source.device)
    for target, name in zip(bias.split(parts.sizes_out), parts.names, strict=True):
        target.copy_(source.stored(f"{name}.bias", target.shape, Dense.dtypes))
    return bias


def copy_transposed(target: Tensor, source: Tensor) -> None:
    """Copy source [out, in] to target [in, out], in strips that fit the processor's cache: twice as fast as at once."""
    for i in range(0, source.shape[0], STRIP):
        target[:, i : i + STRIP].copy_(source[i : i + STRIP].to(target.dtype).t().contiguous())
