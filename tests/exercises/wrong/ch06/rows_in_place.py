# exercise: 06.1
# says: changes its argument `weight`
"""Divides the caller's weight."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().amax(1) / 127.5).clamp_min(1e-12)
    weight /= scale[:, None]
    return weight.round().clamp(-128, 127).to(torch.int8), scale
