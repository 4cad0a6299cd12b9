# exercise: 10.2
# says: with negative numbers
"""p - q, not clipped."""

import torch


def residual(p, q):
    return p - q
