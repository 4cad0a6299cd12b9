# exercise: 03.3
# says: uses KV head h % H_kv
"""Query head h asks KV head h mod H_kv."""

import torch


def grouped_attention(q, k, v):
    heads, d = q.shape
    by_turn = q.view(heads // k.shape[1], k.shape[1], d)
    weights = (torch.einsum("gkd,skd->gks", by_turn, k) / d**0.5).softmax(-1)
    return torch.einsum("gks,skd->gkd", weights, v).reshape(heads, d)
