# exercise: 01.3
# says: top_k=0
"""order[0:] is everything, and everything goes."""

import torch


def distribution(logits, temperature, top_k, top_p):
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).float()
    logits = logits / temperature
    order = logits.argsort(descending=True)
    logits[order[top_k:]] = -torch.inf
    best = logits.softmax(-1)[order]
    before = best.cumsum(-1) - best
    logits[order[before >= top_p]] = -torch.inf
    return logits.softmax(-1)
