# exercise: 10.2
# says: has one row
"""Only the first row is returned."""

import torch


def residual(p, q):
    rest = (p[0] - q[0]).clamp(min=0)
    return rest / rest.sum()
