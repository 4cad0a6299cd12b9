# exercise: 06.3
# says: nothing to move
"""A channel without activations gets 0."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    x_max, w_max = x.abs().amax(0), weight.abs().amax(0).clamp_min(1e-5)
    return x_max**alpha / w_max ** (1 - alpha)
