# exercise: 06.2
"""float64 holds every sum."""

import torch


def w8a8_linear(x, q_w, s_w):

    s_x = x.abs().amax(1) / 127.5
    q_x = (x / s_x.where(s_x > 0, 1.0)[:, None]).round().clamp(-128, 127)

    sums = torch.einsum("ti,oi->to", q_x.double(), q_w.double())
    return (sums * torch.outer(s_x, s_w).double()).float()
