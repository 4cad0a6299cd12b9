# exercise: 06.1
# says: `scale` has shape
"""A scale of [out, 1]."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().amax(1, keepdim=True) / 127.5).clamp_min(1e-12)
    return (weight / scale).round().clamp(-128, 127).to(torch.int8), scale
