# exercise: 01.1
"""With NumPy."""

import numpy as np
import torch


def causal_attention(q, k, v):
    a, b, c = (x.detach().double().numpy().swapaxes(0, 1) for x in (q, k, v))
    scores = a @ b.swapaxes(1, 2) / np.sqrt(a.shape[-1])
    scores = np.where(np.tri(a.shape[1], dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return torch.from_numpy((e / e.sum(-1, keepdims=True) @ c).swapaxes(0, 1)).to(q.dtype)
