# exercise: 06.2
# says: one scale for all tokens
"""The scale of the first token serves all."""

import torch


def w8a8_linear(x, q_w, s_w):

    s_x = (x[0].abs().max() / 127.5).clamp_min(1e-12)
    q_x = (x / s_x).round().clamp(-128, 127)
    return (q_x.int() @ q_w.int().T).float() * s_x * s_w
