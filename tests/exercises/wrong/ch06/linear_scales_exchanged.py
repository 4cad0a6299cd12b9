# exercise: 06.2
# says: exchanged
"""s_x along the outputs, of a square result."""

import torch


def w8a8_linear(x, q_w, s_w):

    s_x = x.abs().amax(1) / 127.5
    q_x = (x / s_x.where(s_x > 0, 1.0)[:, None]).round().clamp(-128, 127)

    n = min(len(s_x), len(s_w))
    return (q_x.int() @ q_w.int().T).float() * s_x[:n] * s_w[:n, None] if len(s_x) == len(s_w) else None
