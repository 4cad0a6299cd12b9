# exercise: 06.1
# says: from the smallest to the largest
"""The range of an asymmetric grid, without a zero."""

import torch


def quantise_rows(weight):

    scale = ((weight.amax(1) - weight.amin(1)) / 255).clamp_min(1e-12)
    return (weight / scale[:, None]).round().clamp(-128, 127).to(torch.int8), scale
