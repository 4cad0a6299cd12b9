# exercise: 05.2
# says: the whole matrix of scores
"""The attention of chapter 1: right, and the whole matrix is there."""

import torch

from minillm.ops import causal_mask


def tiled_attention(q, k, v, block):
    scores = torch.einsum("thd,shd->hts", q, k) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~causal_mask(len(q), len(k), None, q.device), -torch.inf)
    return torch.einsum("hts,shd->thd", scores.softmax(-1), v)
