# exercise: 06.3
"""With NumPy."""

import numpy as np
import torch


def smooth_scales(x, weight, alpha=0.5):

    a, b = np.abs(x.numpy()).max(0), np.abs(weight.numpy()).max(0)
    with np.errstate(all="ignore"):
        s = np.power(a, alpha) / np.power(b, 1 - alpha)
    s[(a == 0) | (b == 0)] = 1
    return torch.from_numpy(s.astype(np.float32))
