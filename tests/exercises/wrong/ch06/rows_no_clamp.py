# exercise: 06.1
# says: wraps around
"""127.5 rounds to 128, and int8 has no 128."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().amax(1) / 127.5).clamp_min(1e-12)
    return (weight / scale[:, None]).round().to(torch.int8), scale
