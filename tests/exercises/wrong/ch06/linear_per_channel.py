# exercise: 06.2
# says: for each channel
"""Scales per input channel of x cannot leave the sum."""

import torch


def w8a8_linear(x, q_w, s_w):

    s_x = x.abs().amax(0) / 127.5
    q_x = (x / s_x.where(s_x > 0, 1.0)).round().clamp(-128, 127)
    return ((q_x * s_x) @ q_w.float().T) * s_w
