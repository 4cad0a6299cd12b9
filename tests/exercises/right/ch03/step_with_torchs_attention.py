# exercise: 03.1
"""One query sees all keys, so torch's attention needs no mask; the write is an index_copy_."""

import torch
import torch.nn.functional as F

from minillm.ops import rope


def cached_step(q, k, v, k_cache, v_cache, position, cos, sin):
    at = torch.tensor([position])
    k_cache.index_copy_(0, at, rope(k[None], cos[at], sin[at]))
    v_cache.index_copy_(0, at, v[None])
    keys, values = (x[: position + 1].transpose(0, 1) for x in (k_cache, v_cache))  # [H, s, D]
    out = F.scaled_dot_product_attention(rope(q[None], cos[at], sin[at]).transpose(0, 1), keys, values)
    return out[:, 0]
