# exercise: 01.3
"""With torch.topk and searchsorted."""

import torch


def distribution(logits, temperature, top_k, top_p):
    k = 1 if temperature == 0 else min(top_k or len(logits), len(logits))
    values, ids = logits.topk(k)
    p = torch.softmax((values - values[0]) / (temperature or 1), 0)
    if top_p < 1:
        p = p[: int(torch.searchsorted(p.cumsum(0), top_p)) + 1]
        p = p / p.sum()
    return torch.zeros_like(logits).index_put((ids[: len(p)],), p)
