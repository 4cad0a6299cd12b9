# exercise: 06.2
# says: toward 0
"""No rounding of x."""

import torch


def w8a8_linear(x, q_w, s_w):

    s_x = (x.abs().amax(1) / 127.5).clamp_min(1e-12)
    q_x = (x / s_x[:, None]).clamp(-128, 127).to(torch.int8)
    return (q_x.int() @ q_w.int().T).float() * s_x[:, None] * s_w
