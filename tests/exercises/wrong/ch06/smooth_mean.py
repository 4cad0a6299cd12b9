# exercise: 06.3
# says: mean
"""The mean of |x|, as in AWQ."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    x_mean, w_max = x.abs().mean(0), weight.abs().amax(0)
    dead = (x_mean == 0) | (w_max == 0)
    return (x_mean**alpha / w_max ** (1 - alpha)).masked_fill(dead, 1.0)
