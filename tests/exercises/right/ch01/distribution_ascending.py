# exercise: 01.3
"""Sorts upwards, as vLLM does: cut while the tail holds at most 1 - p; at least one stays."""

import torch


def distribution(logits, temperature, top_k, top_p):
    if temperature < 1e-5:
        return (torch.arange(len(logits)) == logits.argmax()).float()
    values, order = (logits / temperature).sort()
    if top_k > 0:
        values[: max(0, len(values) - top_k)] = -torch.inf
    cut = values.softmax(-1).cumsum(-1) <= 1 - top_p
    cut[-1] = False
    values[cut] = -torch.inf
    return torch.empty_like(logits).scatter(0, order, values).softmax(-1)
