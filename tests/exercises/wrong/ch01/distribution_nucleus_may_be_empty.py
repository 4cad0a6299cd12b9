# exercise: 01.3
# says: the token that crosses top_p is missing
"""top_p = 0 keeps nothing."""

import torch


def distribution(logits, temperature, top_k, top_p):
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).to(logits.dtype)
    s, order = (logits / temperature).sort(descending=True)
    if top_k > 0:
        s[top_k:] = -torch.inf
    if top_p < 1:
        s[s.softmax(-1).cumsum(-1) > max(top_p, 0)] = -torch.inf if top_p else torch.nan
    return torch.zeros_like(s).scatter(0, order, s.softmax(-1))
