# exercise: 06.1
"""With NumPy."""

import numpy as np
import torch


def quantise_rows(weight):

    w = weight.numpy()
    scale = np.abs(w).max(axis=1) / np.float32(127.5)
    numbers = np.clip(np.rint(w / np.where(scale == 0, 1, scale)[:, None]), -128, 127)
    return torch.from_numpy(numbers.astype(np.int8)), torch.from_numpy(scale.astype(np.float32))
