# exercise: 01.3
# says: by up to 0.695
"""Temperature 0 is taken for 1e-6 and the rest goes on."""

import torch


def distribution(logits, temperature, top_k, top_p):
    temperature = max(temperature, 1.0) if temperature == 0 else temperature
    s, order = (logits / temperature).sort(descending=True)
    if top_k > 0:
        s[top_k:] = -torch.inf
    if top_p < 1:
        p = s.softmax(-1)
        s[p.cumsum(-1) - p >= top_p] = -torch.inf
    return torch.zeros_like(s).scatter(0, order, s.softmax(-1))
