# exercise: 07.3
# says: alpha = 0.5
"""alpha is always 0.5."""

import torch

from minillm.quantization.absmax import fake_quantise


def awq_scales(weight, x, bits=4, group_size=32):
    mean = x.abs().mean(0)
    right = x @ weight.T
    best, least = None, float("inf")
    for r in [10]:
        s = mean.pow(r / 20).clamp(min=1e-4)
        s = s / (s.max() * s.min()).sqrt()
        rounded = fake_quantise(weight * s, bits, group_size) / s
        loss = (x @ rounded.T - right).square().mean().item()
        if loss < least:
            best, least = s, loss
    return best
