# exercise: 01.3
# says: A sum that is exactly top_p reaches it
"""All that tie with the last token of the nucleus stay."""

import torch


def distribution(logits, temperature, top_k, top_p):
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).to(logits.dtype)
    s, order = (logits / temperature).sort(descending=True)
    if top_k > 0:
        s[top_k:] = -torch.inf
    if top_p < 1:
        p = s.softmax(-1)
        last = p[(p.cumsum(-1) - p < top_p).nonzero()[-1]] if top_p else p[0]
        s[p < last] = -torch.inf
    return torch.zeros_like(s).scatter(0, order, s.softmax(-1))
