# exercise: 01.3
# says: Top-k keeps exactly k tokens, even if several are equally likely, or all tokens if there are fewer
"""topk cannot give more than there are."""

import torch


def distribution(logits, temperature, top_k, top_p):
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).to(logits.dtype)
    s, order = (logits / temperature).sort(descending=True)
    if top_k > 0:
        s[s < s.topk(top_k).values[-1]] = -torch.inf
    if top_p < 1:
        p = s.softmax(-1)
        s[p.cumsum(-1) - p >= top_p] = -torch.inf
    return torch.zeros_like(s).scatter(0, order, s.softmax(-1))
