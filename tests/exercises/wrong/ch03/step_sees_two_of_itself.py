# exercise: 03.1
# says: by up to 0.271
"""The new token is seen twice."""

import torch

from minillm.ops import rope


def cached_step(q, k, v, k_cache, v_cache, position, cos, sin):
    q = rope(q, cos[position], sin[position])
    k_cache[position] = rope(k, cos[position], sin[position])
    v_cache[position] = v
    keys, values = (torch.cat([x[: position + 1], x[position : position + 1]]) for x in (k_cache, v_cache))
    weights = (torch.einsum("hd,shd->hs", q, keys) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("hs,shd->hd", weights, values)
