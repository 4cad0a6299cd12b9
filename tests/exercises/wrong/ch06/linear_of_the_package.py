# exercise: 06.2
# says: minillm
"""The package's operation."""

import torch


def w8a8_linear(x, q_w, s_w):

    from minillm.ops import w8a8_matmul
    from minillm.packed import QuantizedWeight

    return w8a8_matmul(x, QuantizedWeight(q_w, s_w[:, None]), None)
