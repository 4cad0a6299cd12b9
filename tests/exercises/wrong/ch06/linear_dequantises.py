# exercise: 06.2
# says: x is not quantised
"""W8A16: float activations."""

import torch


def w8a8_linear(x, q_w, s_w):

    return x @ (q_w.float() * s_w[:, None]).T
