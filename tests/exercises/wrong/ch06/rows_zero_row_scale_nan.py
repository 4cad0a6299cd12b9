# exercise: 06.1
# says: row of zeros
"""A NaN as the scale of a row of zeros."""

import torch


def quantise_rows(weight):

    largest = weight.abs().amax(1)
    scale = largest * largest / largest / 127.5
    return (weight / scale[:, None]).nan_to_num(0).round().clamp(-128, 127).to(torch.int8), scale
