# exercise: 06.2
# says: / 127.5, not / 127
"""The other convention."""

import torch


def w8a8_linear(x, q_w, s_w):

    s_x = (x.abs().amax(1) / 127).clamp_min(1e-12)
    q_x = (x / s_x[:, None]).round().clamp(-127, 127)
    return (q_x.int() @ q_w.int().T).float() * s_x[:, None] * s_w
