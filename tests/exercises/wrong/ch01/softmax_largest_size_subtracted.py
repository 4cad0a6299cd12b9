# exercise: 01.2
# says: the result has NaN in 3 of 9 places, first at row=1, V=0
"""The largest absolute score instead of the maximum."""

import torch


def softmax(x):
    e = (x - x.nan_to_num(neginf=0).abs().amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)
