"""Folding: scale channels between two operations without changing the result.

If x is divided by s, channel by channel, and the next matrix has its columns multiplied by s, the product stays the
same: (x / s) (W s)^T = x W^T. The division costs nothing, because the operation before takes it over: the weight of a
norm, or the rows of a matrix. AWQ and SmoothQuant differ in how they choose s [channels].
"""

import torch
from torch import Tensor

from minillm.model.linear import Linear
from minillm.model.transformer import Block, Norm
from minillm.quantization.rounding import floats, replaced

NORMS = {"qkv": "attention_norm", "gate_up": "mlp_norm"}  # the norm before each projection that has one


def fold_into_norm(block: Block, role: str, s: Tensor, dtype: torch.dtype) -> tuple[Block, Tensor]:
    """Return a block with the same outputs in which the inputs of "qkv" or "gate_up" are divided by s [in].

    The second result is the s by which they are really divided; see `divide_norm`.
    """
    norm, exact = divide_norm(getattr(block, NORMS[role]), s, dtype)
    folded = replaced(block, {role: multiply_columns(floats(block)[role], exact)})
    setattr(folded, NORMS[role], norm)
    return folded, exact


def divide_norm(norm: Norm, s: Tensor, dtype: torch.dtype) -> tuple[Norm, Tensor]:
    """Return the norm with outputs divided by s, and the s by which they are really divided, both [channels].

    The two differ a little: the norm is stored as `dtype`, so the weight of the new norm is rounded to it here. The
    next matrix must be multiplied by the second s, so that this rounding changes no product.
    """
    weight = (norm.weight / s).to(dtype).to(norm.weight.dtype)
    exact = torch.where(weight != 0, norm.weight / weight, s)
    return Norm(weight, None if norm.bias is None else norm.bias / exact), exact


def multiply_columns(linear: Linear, s: Tensor) -> Linear:
    """Return the projection for inputs that are divided by s [in]."""
    return Linear(linear.weight * s[:, None], linear.bias)


def divide_rows(linear: Linear, s: Tensor) -> Linear:
    """Return the projection with the last of its outputs divided by s, which has one number for each of these."""
    factor = linear.weight.new_ones(linear.weight.shape[1])
    factor[-len(s) :] /= s
    return Linear(linear.weight * factor, None if linear.bias is None else linear.bias * factor)
