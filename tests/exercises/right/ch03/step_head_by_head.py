# exercise: 03.1
"""One head after the other, turned pair by pair."""

import torch


def turn(x, cos, sin):
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    c, s = cos[..., :half], sin[..., half:]
    return torch.cat([first * c - second * s, second * c + first * s], -1)


def cached_step(q, k, v, k_cache, v_cache, position, cos, sin):
    k_cache[position] = turn(k, cos[position], sin[position])
    v_cache[position] = v
    q = turn(q, cos[position], sin[position])
    out = torch.empty_like(q)
    for h in range(q.shape[0]):
        scores = k_cache[: position + 1, h] @ q[h] * q.shape[-1] ** -0.5
        weights = (scores - scores.max()).exp()
        out[h] = (weights / weights.sum()) @ v_cache[: position + 1, h]
    return out
