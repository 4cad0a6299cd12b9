# exercise: 03.3
# says: all query heads of a group get the same
"""The query heads of a group are averaged, so that there is one for each KV head."""

import torch


def grouped_attention(q, k, v):
    num_kv = k.shape[1]
    group = q.shape[0] // num_kv
    mean = q.view(num_kv, group, -1).mean(1)
    weights = (torch.einsum("hd,shd->hs", mean, k) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("hs,shd->hd", weights, v).repeat_interleave(group, 0)
