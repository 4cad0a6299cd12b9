# exercise: 06.1
# says: / 127.5, not / 127
"""The symmetric grid of 255 numbers."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().amax(1) / 127).clamp_min(1e-12)
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale
