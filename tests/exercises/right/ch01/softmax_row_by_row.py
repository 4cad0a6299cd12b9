# exercise: 01.2
"""Row by row, in NumPy."""

import numpy as np
import torch


def softmax(x):
    rows = x.detach().numpy().reshape(-1, x.shape[-1])
    out = np.empty_like(rows)
    for i, row in enumerate(rows):
        e = np.exp(row - row.max())
        out[i] = e / e.sum()
    return torch.from_numpy(out.reshape(x.shape))
