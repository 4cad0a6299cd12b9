# exercise: 06.3
# says: rows of the weight
"""The largest of each row, of a square weight."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    x_max, w_max = x.abs().amax(0), weight.abs().amax(1)
    dead = (x_max == 0) | (weight.abs().amax(0) == 0)
    return (x_max**alpha / w_max.clamp_min(1e-9) ** (1 - alpha)).masked_fill(dead, 1.0)
