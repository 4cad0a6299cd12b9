"""Weights in 4-bit floating point: MXFP4 and NVFP4, which GPUs since Blackwell multiply directly.

A number has 1 bit of sign, 2 of exponent and 1 of mantissa (E2M1), so it is one of 0, 0.5, 1, 1.5, 2, 3, 4, 6 or their
negatives. Small blocks share a scale. In MXFP4 32 numbers share a power of two, 8 bits of exponent: 4.25 bits for each
weight. In NVFP4 16 numbers share a float8_e4m3fn, and the matrix a float32 on top: 4.5 bits for each weight.

These are definitions: they return floats with the values that the formats hold.
Sources: OCP Microscaling Formats 1.0, section 5.3; NVIDIA, "Introducing NVFP4", 2025.
"""

import torch
from torch import Tensor

HIGHEST = 6.0
MX_BLOCK, NV_BLOCK = 32, 16
E4M3 = torch.float8_e4m3fn


def mxfp4(weight: Tensor) -> Tensor:
    """Return a weight [out, in] as MXFP4 holds it, in float32.

    The scale of a block is the power of two that brings its largest |w| between 3.5 and 7; numbers above 6 become 6.
    Raises `ValueError` if 32 does not divide `in`, or for numbers that are not finite.
    """
    blocks = _blocks(weight, MX_BLOCK)
    exponent = _exponent(blocks.abs().amax(-1, keepdim=True) / 1.75) - 1
    scale = 2.0 ** exponent.clamp(-126, 127)
    return (to_e2m1(blocks / scale) * scale).flatten(1)


def nvfp4(weight: Tensor) -> Tensor:
    """Return a weight [out, in] as NVFP4 holds it, in float32.

    The scale of the matrix brings the largest scale of a block to 448, the largest float8_e4m3fn. Raises `ValueError`
    if 16 does not divide `in`, or for numbers that are not finite.
    """
    blocks = _blocks(weight, NV_BLOCK)
    highest = blocks.abs().amax(-1, keepdim=True)
    whole = highest.max() / (HIGHEST * torch.finfo(E4M3).max)
    if whole == 0:
        return weight.float()
    scale = (highest / HIGHEST / whole).to(E4M3).float() * whole
    return (to_e2m1(blocks / scale.where(scale > 0, 1.0)) * scale).flatten(1)


def to_e2m1(x: Tensor) -> Tensor:
    """Return the nearest E2M1 number to each x. In the middle of two, the even mantissa wins."""
    step = 2.0 ** (_exponent(x).clamp(0, 2) - 1)  # 0.5 below 2, 1 below 4, then 2
    return ((x / step).round() * step).clamp(-HIGHEST, HIGHEST)


def _exponent(x: Tensor) -> Tensor:
    """Return floor(log2 |x|), exactly; 0 for x = 0."""
    mantissa, exponent = torch.frexp(x)  # x = mantissa * 2^exponent, 0.5 <= |mantissa| < 1
    return torch.where(mantissa == 0, 0, exponent - 1)


def _blocks(weight: Tensor, size: int) -> Tensor:
    """Return the weight [out, in] as float32 [out, in / size, size]."""
    if weight.ndim != 2 or weight.shape[1] % size:
        raise ValueError(f"weight {list(weight.shape)}: blocks of {size} numbers do not fill its rows")
    if not weight.isfinite().all():
        raise ValueError("the weight has a number that is not finite (nan or inf): it cannot be quantised")
    blocks: Tensor = weight.float().unflatten(1, (-1, size))
    return blocks
