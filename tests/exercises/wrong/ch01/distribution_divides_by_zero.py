# exercise: 01.3
# says: temperature 0
"""Forgets that 0 means greedy."""

import torch


def distribution(logits, temperature, top_k, top_p):
    logits = logits / temperature
    if top_k > 0:
        kth = logits.topk(min(top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    best, order = logits.softmax(-1).sort(descending=True)
    before = best.cumsum(-1) - best
    logits[order[before >= top_p]] = -torch.inf
    return logits.softmax(-1)
