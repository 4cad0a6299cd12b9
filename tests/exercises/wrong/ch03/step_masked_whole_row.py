# exercise: 03.1
# says: the rows that are not written yet hold nan, and they are read
"""Later scores are masked, later values are read."""

import torch

from minillm.ops import rope


def cached_step(q, k, v, k_cache, v_cache, position, cos, sin):
    q = rope(q, cos[position], sin[position])
    k_cache[position] = rope(k, cos[position], sin[position])
    v_cache[position] = v
    keys, values = k_cache, v_cache
    scores = torch.einsum("hd,shd->hs", q, keys) / q.shape[-1] ** 0.5
    scores[:, position + 1 :] = -torch.inf
    weights = scores.softmax(-1)
    return torch.einsum("hs,shd->hd", weights, values)
