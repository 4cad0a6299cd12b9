# exercise: 03.1
# says: never written
"""Rows of zeros are taken for empty ones."""

import torch

from minillm.ops import rope


def cached_step(q, k, v, k_cache, v_cache, position, cos, sin):
    q = rope(q, cos[position], sin[position])
    k_cache[position] = rope(k, cos[position], sin[position])
    v_cache[position] = v
    used = k_cache.abs().sum((1, 2)) > 0
    keys, values = k_cache[used], v_cache[used]
    weights = (torch.einsum("hd,shd->hs", q, keys) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("hs,shd->hd", weights, values)
