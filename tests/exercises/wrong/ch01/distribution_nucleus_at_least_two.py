# exercise: 01.3
# says: by up to 0.426
"""The nucleus has at least two tokens."""

import torch


def distribution(logits, temperature, top_k, top_p):
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).to(logits.dtype)
    s, order = (logits / temperature).sort(descending=True)
    if top_k > 0:
        s[top_k:] = -torch.inf
    if top_p < 1:
        p = s.softmax(-1)
        keep = s[:2].clone()
        s[p.cumsum(-1) - p >= top_p] = -torch.inf
        s[:2] = keep
    return torch.zeros_like(s).scatter(0, order, s.softmax(-1))
