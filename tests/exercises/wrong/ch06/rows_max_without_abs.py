# exercise: 06.1
# says: large negative weight
"""max instead of max |w|."""

import torch


def quantise_rows(weight):

    scale = (weight.amax(1) / 127.5).clamp_min(1e-12)
    return (weight / scale[:, None]).round().clamp(-128, 127).to(torch.int8), scale
