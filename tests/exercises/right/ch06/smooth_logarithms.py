# exercise: 06.3
"""By logarithms."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    x_max, w_max = x.abs().amax(0), weight.abs().amax(0)
    dead = (x_max == 0) | (w_max == 0)

    s = torch.exp(alpha * x_max.log() - (1 - alpha) * w_max.log())
    return torch.where(dead, torch.ones_like(s), s)
