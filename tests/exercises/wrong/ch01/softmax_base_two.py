# exercise: 01.2
# says: by up to 0.121
"""Powers of 2."""

import torch


def softmax(x):
    e = torch.exp2(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)
