# exercise: 06.1
# says: steps per weight
"""The scale upside down."""

import torch


def quantise_rows(weight):

    scale = 127.5 / weight.abs().amax(1).clamp_min(1e-12)
    return (weight * scale[:, None]).round().clamp(-128, 127).to(torch.int8), scale
