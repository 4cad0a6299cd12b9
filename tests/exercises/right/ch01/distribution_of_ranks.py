# exercise: 01.3
"""By each token's rank, without moving anything."""

import torch


def distribution(logits, temperature, top_k, top_p):
    rank = logits.argsort(descending=True, stable=True).argsort()
    if temperature == 0:
        return (rank == 0).to(logits.dtype)
    p = ((logits - logits.max()) / temperature).exp()
    if top_k:
        p = p * (rank < top_k)
    p = p / p.sum()
    if top_p < 1:
        before = torch.stack([p[rank < r].sum() for r in rank])
        p = p * ((before < top_p) | (rank == 0))
    return p / p.sum()
