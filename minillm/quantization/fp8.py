"""Weights in 8-bit floating point: float8_e4m3fn has 4 bits of exponent, 3 of mantissa, and 448 as its largest number.

Its numbers are closer together near zero, so a row needs no groups.
Source: Micikevicius et al. 2022 (arXiv 2209.05433).
"""

from torch import Tensor, float8_e4m3fn

from minillm.layer_kv import LARGEST
from minillm.packed import QuantizedWeight


def to_fp8(weight: Tensor) -> QuantizedWeight:
    """Return a weight [out, in] in float8_e4m3fn with one scale per row, in the weight's dtype.

    Raises `ValueError` for weights that are not finite.
    """
    highest = weight.float().abs().amax(1, keepdim=True)  # [out, 1]
    if not highest.isfinite().all():
        raise ValueError("the weight has a number that is not finite (nan or inf): it cannot be quantised")
    scale = (highest / LARGEST[float8_e4m3fn]).clamp_min(1e-12).to(weight.dtype)
    return QuantizedWeight((weight.float() / scale.float()).clamp(-448, 448).to(float8_e4m3fn), scale)
