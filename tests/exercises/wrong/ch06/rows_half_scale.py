# exercise: 06.1
# says: `scale` has dtype float16
"""Scales in float16."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().amax(1) / 127.5).clamp_min(1e-12)
    return (weight / scale[:, None]).round().clamp(-128, 127).to(torch.int8), scale.half()
