# exercise: 06.3
# says: nothing to move
"""A column of zeros gives an infinity."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    x_max, w_max = x.abs().amax(0), weight.abs().amax(0)
    return (x_max**alpha / w_max ** (1 - alpha)).where(x_max > 0, 1.0)
