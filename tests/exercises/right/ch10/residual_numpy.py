# exercise: 10.2
"""NumPy."""

import numpy as np
import torch


def residual(p, q):
    rest = np.maximum(p.numpy() - q.numpy(), 0)
    empty = rest.sum(1) == 0
    rest[empty] = p.numpy()[empty]
    return torch.from_numpy(rest / rest.sum(1, keepdims=True))
