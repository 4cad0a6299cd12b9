# exercise: 05.2
# says: whole rows of scores
"""Tiles of queries only: each has its whole rows of scores, and needs no online softmax."""

import torch


def tiled_attention(q, k, v, block):
    past = len(k) - len(q)
    out = torch.empty_like(q)
    for first in range(0, len(q), block):
        rows = q[first : first + block]
        end = past + first + len(rows)
        scores = torch.einsum("thd,shd->hts", rows, k[:end]) * q.shape[-1] ** -0.5
        i = past + first + torch.arange(len(rows))
        scores = scores.masked_fill(torch.arange(end) > i[:, None], -torch.inf)
        out[first : first + block] = torch.einsum("hts,shd->thd", scores.softmax(-1), v[:end])
    return out
