# exercise: 06.3
# says: shape
"""One scale per token."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    return x.abs().amax(1) ** alpha / weight.abs().max() ** (1 - alpha)
