# exercise: 06.3
# says: large negative
"""max without abs."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    x_max, w_max = x.amax(0).clamp_min(1e-5), weight.abs().amax(0)
    dead = (x.abs().amax(0) == 0) | (w_max == 0)
    return (x_max**alpha / w_max ** (1 - alpha)).masked_fill(dead, 1.0)
