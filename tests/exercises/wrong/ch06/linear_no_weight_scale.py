# exercise: 06.2
# says: scale of the weight's row is missing
"""s_w is forgotten."""

import torch


def w8a8_linear(x, q_w, s_w):

    s_x = x.abs().amax(1) / 127.5
    q_x = (x / s_x.where(s_x > 0, 1.0)[:, None]).round().clamp(-128, 127)

    return (q_x.int() @ q_w.int().T).float() * s_x[:, None]
