# exercise: 06.1
# says: dtype float32; it should be int8
"""The numbers stay floats."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().amax(1) / 127.5).clamp_min(1e-12)
    return (weight / scale[:, None]).round().clamp(-128, 127), scale
