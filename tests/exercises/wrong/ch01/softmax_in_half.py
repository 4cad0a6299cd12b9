# exercise: 01.2
# says: by up to 0.00028
"""Computed in float16."""

import torch


def softmax(x):
    e = (x - x.amax(-1, keepdim=True)).half().exp()
    return (e / e.sum(-1, keepdim=True)).to(x.dtype)
