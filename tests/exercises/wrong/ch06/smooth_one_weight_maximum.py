# exercise: 06.3
# says: largest of the whole weight
"""One maximum for all of W."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    x_max, w_max = x.abs().amax(0), weight.abs().max()
    dead = (x_max == 0) | (weight.abs().amax(0) == 0)
    return (x_max**alpha / w_max ** (1 - alpha)).masked_fill(dead, 1.0)
