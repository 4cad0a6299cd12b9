# exercise: 03.1
# says: never written
"""The whole row of the cache is read, its unwritten end too."""

import torch

from minillm.ops import rope


def cached_step(q, k, v, k_cache, v_cache, position, cos, sin):
    q = rope(q, cos[position], sin[position])
    k = rope(k, cos[position], sin[position])
    k_cache[position] = k
    v_cache[position] = v
    keys, values = k_cache[:], v_cache[:]
    scores = torch.einsum("hd,shd->hs", q, keys) / q.shape[-1] ** 0.5
    return torch.einsum("hs,shd->hd", scores.softmax(-1), values)
