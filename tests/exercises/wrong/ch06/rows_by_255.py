# exercise: 06.1
# says: half as far
"""255 steps from 0 to the largest weight."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().amax(1) / 255).clamp_min(1e-12)
    return (weight / scale[:, None]).round().clamp(-128, 127).to(torch.int8), scale
