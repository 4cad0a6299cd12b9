# exercise: 03.1
"""Written with index_copy_, weighed by hand."""

import torch

from minillm.ops import rope


def cached_step(q, k, v, k_cache, v_cache, position, cos, sin):
    at = torch.tensor([position])
    turned = rope(torch.stack([q, k]), cos[position], sin[position])
    k_cache.index_copy_(0, at, turned[1:])
    v_cache.index_copy_(0, at, v[None])
    scores = (turned[0] * k_cache.narrow(0, 0, position + 1)).sum(-1) / q.size(-1) ** 0.5  # [s, H]
    e = (scores - scores.amax(0)).exp()
    return ((e / e.sum(0))[..., None] * v_cache.narrow(0, 0, position + 1)).sum(0)
