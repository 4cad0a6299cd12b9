# exercise: 06.3
"""Channel by channel."""

import torch


def smooth_scales(x, weight, alpha=0.5):

    scales = []
    for j in range(x.shape[1]):
        a, b = float(x[:, j].abs().max()), float(weight[:, j].abs().max())
        scales.append(a**alpha / b ** (1 - alpha) if a and b else 1.0)
    return torch.tensor(scales)
