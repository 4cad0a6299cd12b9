# exercise: 03.1
# says: by up to 0.000158
"""Weights in float16."""

import torch

from minillm.ops import rope


def cached_step(q, k, v, k_cache, v_cache, position, cos, sin):
    q = rope(q, cos[position], sin[position])
    k_cache[position] = rope(k, cos[position], sin[position])
    v_cache[position] = v
    keys, values = k_cache[: position + 1], v_cache[: position + 1]
    weights = (torch.einsum("hd,shd->hs", q, keys) / q.shape[-1] ** 0.5).half().softmax(-1).float()
    return torch.einsum("hs,shd->hd", weights, values)
