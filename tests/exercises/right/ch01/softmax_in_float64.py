# exercise: 01.2
"""In numpy, in double precision, and back."""

import numpy as np
import torch


def softmax(x):
    y = x.double().numpy()
    e = np.exp(y - y.max(axis=-1, keepdims=True))
    return torch.from_numpy(e / e.sum(axis=-1, keepdims=True)).to(x.dtype)
