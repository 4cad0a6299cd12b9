# exercise: 06.1
# says: is wrong in
"""A scale from the mean."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().mean(1) / 32).clamp_min(1e-12)
    return (weight / scale[:, None]).round().clamp(-128, 127).to(torch.int8), scale
