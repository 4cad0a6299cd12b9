# exercise: 03.1
# says: wrong place
"""The new entry is put behind a gap."""

import torch

from minillm.ops import rope


def cached_step(q, k, v, k_cache, v_cache, position, cos, sin):
    q = rope(q, cos[position], sin[position])
    k = rope(k, cos[position], sin[position])
    k_cache[position + 1] = k
    v_cache[position + 1] = v
    keys, values = k_cache[: position + 2], v_cache[: position + 2]
    scores = torch.einsum("hd,shd->hs", q, keys) / q.shape[-1] ** 0.5
    return torch.einsum("hs,shd->hd", scores.softmax(-1), values)
