# exercise: 01.3
"""In plain Python, token by token."""

import math

import torch


def distribution(logits, temperature, top_k, top_p):
    ids = sorted(range(len(logits)), key=lambda i: -logits[i].item())
    result = torch.zeros_like(logits)
    if temperature == 0:
        result[ids[0]] = 1
        return result
    if top_k:
        ids = ids[:top_k]
    best = logits[ids[0]].item()
    weight = {i: math.exp((logits[i].item() - best) / temperature) for i in ids}
    if top_p < 1:
        total, seen, kept = sum(weight.values()), 0.0, []
        for i in ids:
            if kept and seen >= top_p * total:
                break
            kept.append(i)
            seen += weight[i]
        ids = kept
    for i in ids:
        result[i] = weight[i] / sum(weight[j] for j in ids)
    return result
