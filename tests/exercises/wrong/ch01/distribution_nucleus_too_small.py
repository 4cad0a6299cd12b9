# exercise: 01.3
# says: the token that crosses top_p is missing
"""Keeps what stays below p; the token that carries the sum over p goes."""

import torch


def distribution(logits, temperature, top_k, top_p):
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).float()
    logits = logits / temperature
    if top_k > 0:
        kth = logits.topk(min(top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p < 1:
        probs, order = logits.softmax(-1).sort(descending=True)
        remove = probs.cumsum(-1) > top_p
        remove[0] = False
        logits = logits.masked_fill(torch.zeros_like(remove).scatter(0, order, remove), -torch.inf)
    return logits.softmax(-1)
