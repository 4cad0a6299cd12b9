# exercise: 10.2
# says: this is p.
"""No residual."""

import torch


def residual(p, q):
    return p.clone()
