# exercise: 10.2
# says: no row has a residual
"""One row with a residual decides for all."""

import torch


def residual(p, q):
    rest = (p - q).clamp(min=0)
    if rest.sum() == 0:
        return p.clone()
    return (rest / rest.sum(-1, keepdim=True)).nan_to_num(0.0)
