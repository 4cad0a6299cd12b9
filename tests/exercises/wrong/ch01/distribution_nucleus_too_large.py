# exercise: 01.3
# says: one token too many
"""Shifts the mask by one although the comparison already keeps the crossing token."""

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
        keep = int((probs.cumsum(-1) < top_p).sum()) + 2
        logits[order[keep:]] = -torch.inf
    return logits.softmax(-1)
