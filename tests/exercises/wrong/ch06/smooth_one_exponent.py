# exercise: 06.3
# says: both have the exponent alpha
"""(x / w)^alpha."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    x_max, w_max = x.abs().amax(0), weight.abs().amax(0)
    dead = (x_max == 0) | (w_max == 0)

    return ((x_max / w_max) ** alpha).masked_fill(dead, 1.0)
