"""`LayerKV`: the keys and values of one layer, in the blocks of a KV cache.

Position p of a request is in slot `block_table[p // block_size] * block_size + p % block_size` (batch.py), and slot s
is `k[s // block_size, s % block_size]`. A cache of int8 or float8_e4m3fn is quantised: each slot and KV head also has a
scale, so that a slot is written once and never depends on what other slots hold.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# The formats of a quantised cache, with the largest number of each.
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


class LayerKV(NamedTuple):
    """Hold K and V of one layer, and in a quantised cache their scales."""

    k: Tensor  # [blocks, block_size, H_kv, D]
    v: Tensor
    k_scale: Tensor | None = None  # [blocks, block_size, H_kv] float32
    v_scale: Tensor | None = None

    @classmethod
    def empty(
        cls, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device | str
    ) -> "LayerKV":
        """Return K and V of `shape`, and scales if `dtype` is a format of a quantised cache; nothing is initialised."""
        shapes = {dtype: shape, torch.float32: shape[:3]} if dtype in LARGEST else {dtype: shape}
        return cls(*(torch.empty(s, dtype=d, device=device) for d, s in shapes.items() for _ in range(2)))

    @property
    def tensors(self) -> list[Tensor]:
        """Return the tensors that are not None; block b is row b of each."""
        return [tensor for tensor in self if tensor is not None]

    def check(self) -> None:
        """Raise ValueError if a kernel would read or write the wrong place. Shapes only: no wait for the device."""
        if self.k.ndim != 4 or self.v.shape != self.k.shape or self.v.dtype != self.k.dtype:
            raise ValueError(
                f"kv.k {tuple(self.k.shape)} {self.k.dtype} and kv.v {tuple(self.v.shape)} {self.v.dtype} must be "
                "alike, [blocks, block_size, H_kv, D]"
            )
        for name, scale in (("k_scale", self.k_scale), ("v_scale", self.v_scale)):
            if (scale is not None) != (self.k.dtype in LARGEST):
                raise ValueError(
                    f"kv.{name}: a quantised cache needs scales, and no other ({self.k.dtype} here)"
                )
            if scale is not None and (scale.shape != self.k.shape[:3] or scale.dtype != torch.float32):
                raise ValueError(
                    f"kv.{name} {tuple(scale.shape)} {scale.dtype} must be float32 {tuple(self.k.shape[:3])}"
                )
        if not all(tensor.is_contiguous() for tensor in self.tensors):
            raise ValueError("all tensors of kv must be contiguous: a slot's number is its place in memory")
