# exercise: 01.3
# says: multiplied by the temperature
"""A higher temperature sharpens."""

import torch


def distribution(logits, temperature, top_k, top_p):
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).float()
    logits = logits * temperature
    if top_k > 0:
        kth = logits.topk(min(top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    best, order = logits.softmax(-1).sort(descending=True)
    before = best.cumsum(-1) - best
    logits[order[before >= top_p]] = -torch.inf
    return logits.softmax(-1)
