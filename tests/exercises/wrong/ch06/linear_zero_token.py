# exercise: 06.2
# says: token of zeros
"""0 / 0."""

import torch


def w8a8_linear(x, q_w, s_w):

    s_x = x.abs().amax(1) / 127.5
    q_x = (x / s_x[:, None]).round().clamp(-128, 127)
    return (q_x.double() @ q_w.double().T).float() * s_x[:, None] * s_w
