# exercise: 01.3
# says: Temperature 0 gives all probability to the likeliest token
"""At temperature 0 tied tokens share."""

import torch


def distribution(logits, temperature, top_k, top_p):
    if temperature == 0:
        best = (logits == logits.max()).to(logits.dtype)
        return best / best.sum()
    s, order = (logits / temperature).sort(descending=True)
    if top_k > 0:
        s[top_k:] = -torch.inf
    if top_p < 1:
        p = s.softmax(-1)
        s[p.cumsum(-1) - p >= top_p] = -torch.inf
    return torch.zeros_like(s).scatter(0, order, s.softmax(-1))
