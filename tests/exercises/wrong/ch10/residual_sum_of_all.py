# exercise: 10.2
# says: sum of all rows
"""All rows share a sum."""

import torch


def residual(p, q):
    rest = (p - q).clamp(min=0)
    return rest / rest.sum() if rest.sum() > 0 else p.clone()
