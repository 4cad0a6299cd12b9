# exercise: 06.2
# says: one scale for all tokens
"""An activation scale per tensor."""

import torch


def w8a8_linear(x, q_w, s_w):

    s_x = x.abs().max() / 127.5
    q_x = (x / s_x.clamp_min(1e-12)).round().clamp(-128, 127)
    return (q_x.int() @ q_w.int().T).float() * s_x * s_w
