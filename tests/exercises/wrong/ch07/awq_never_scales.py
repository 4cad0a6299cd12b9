# exercise: 07.3
# says: all scales are 1
"""No scaling."""

import torch


def awq_scales(weight, x, bits=4, group_size=32):
    return torch.ones(weight.shape[1])
