# exercise: 06.1
# says: dtype uint8; it should be int8
"""Numbers from 0 to 255."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().amax(1) / 127.5).clamp_min(1e-12)
    return ((weight / scale[:, None]).round() + 128).clamp(0, 255).to(torch.uint8), scale
