# exercise: 05.2
"""The loops of the first FlashAttention: keys outside, queries inside, all the sums kept."""

import torch


def tiled_attention(q, k, v, block):
    num_queries, num_keys = len(q), len(k)
    past = num_keys - num_queries
    m = q.new_full(q.shape[:2], -torch.inf)
    l, out = torch.zeros_like(m), torch.zeros_like(q)
    for start in range(0, num_keys, block):
        keys, values = k[start : start + block], v[start : start + block]
        begin = max(0, start - past) // block * block  # no earlier query sees the first of these keys
        for first in range(begin, num_queries, block):
            rows = slice(first, first + block)
            queries = q[rows] / q.shape[-1] ** 0.5
            s = torch.einsum("thd,shd->ths", queries, keys)
            unseen = (
                torch.arange(start, start + len(keys)) > torch.arange(len(queries))[:, None] + first + past
            )
            s = s.masked_fill(unseen[:, None], -torch.inf)
            top = torch.maximum(m[rows], s.amax(-1))
            base = top.clamp_min(-1e30)
            p, fade = (s - base[..., None]).exp(), (m[rows] - base).exp()
            l[rows] = l[rows] * fade + p.sum(-1)
            out[rows] = out[rows] * fade[..., None] + torch.einsum("ths,shd->thd", p, values)
            m[rows] = top
    return out / l[..., None]
