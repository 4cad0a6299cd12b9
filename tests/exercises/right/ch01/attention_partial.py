# exercise: 01.1
"""A partial of a more general function."""

from functools import partial

import torch


def attention(q, k, v, causal):
    scores = torch.einsum("ihd,jhd->hij", q, k) / q.size(-1) ** 0.5
    if causal:
        i = torch.arange(len(q))
        scores[:, i[:, None] < i] = float("-inf")
    weights = torch.exp(scores - torch.logsumexp(scores, -1, keepdim=True))
    return torch.einsum("hij,jhd->ihd", weights, v)


causal_attention = partial(attention, causal=True)
