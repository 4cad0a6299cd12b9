"""SmoothQuant: move the outliers of activations into the weights, which bear them better.

If activations have 8 bits too, one channel of large inputs takes the whole range of a token, and the other channels are
left with few numbers. Dividing that channel by s and multiplying its weights by s balances the two. The division is
folded into the norm before the projection.

Source: Xiao et al. 2022 (arXiv 2211.10438), equation 4.
"""

import torch
from torch import Tensor

from minillm.model.transformer import Block
from minillm.quantization.calibration import Stream, record
from minillm.quantization.folding import NORMS, fold_into_norm
from minillm.quantization.rounding import Rounding, floats

ALPHA = 0.5  # the share of the difficulty that moves to the weights


def smooth_scale(x_max: Tensor, w_max: Tensor, alpha: float = ALPHA) -> Tensor:
    """Return s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) [in], by which input channel j is divided.

    A channel whose inputs or weights are all zero keeps s = 1. Raises `ValueError` for an alpha outside 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: give 0 (all in the activations) to 1 (all in the weights)")
    s = x_max**alpha / w_max ** (1 - alpha)
    return torch.where((x_max > 0) & (w_max > 0), s, 1.0)


def smooth(stream: Stream, block: Block, dtype: torch.dtype, alpha: float = ALPHA) -> tuple[Block, Stream]:
    """Return a float block with the same outputs and smoother inputs of qkv and gate_up, and the stream after it.

    The inputs of o and down stay as they are: no norm is before them. Norms are rounded to `dtype`.
    """
    inputs, after = record(stream, block)
    for role in NORMS:
        x_max, w_max = inputs[role].abs().amax(0), floats(block)[role].weight.abs().amax(1)  # [in]
        block, _ = fold_into_norm(block, role, smooth_scale(x_max, w_max, alpha), dtype)
    return block, after


def smoothquant_block(
    stream: Stream, block: Block, rounding: Rounding, alpha: float = ALPHA
) -> tuple[Block, Stream]:
    """Return a block that is smoothed and then rounded to nearest, and the stream after the float block."""
    smoothed, after = smooth(stream, block, rounding.dtype, alpha)
    return rounding.rtn(smoothed), after
