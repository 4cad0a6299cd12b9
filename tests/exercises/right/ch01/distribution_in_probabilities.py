# exercise: 01.3
"""Never goes back to logits: zeroes and divides, top-k by a sort and top-p by a loop."""

import torch


def distribution(logits, temperature, top_k, top_p):
    if temperature == 0:
        probs = torch.zeros(len(logits))
        probs[int(logits.argmax())] = 1.0
        return probs
    probs = torch.exp(logits / temperature - (logits / temperature).max())
    ids = sorted(range(len(logits)), key=lambda i: -float(probs[i]))
    ids = ids[:top_k] if top_k else ids
    total = sum(float(probs[i]) for i in ids)
    kept, mass = [], 0.0
    for i in ids:
        kept.append(i)
        mass += float(probs[i]) / total
        if mass >= top_p:
            break
    out = torch.zeros_like(probs)
    out[kept] = probs[kept]
    return out / out.sum()
