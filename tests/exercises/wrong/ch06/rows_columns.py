# exercise: 06.1
# says: for each column
"""The largest of each column, of a square matrix."""

import torch


def quantise_rows(weight):

    scale = weight.abs().amax(0) / 127.5
    numbers = (weight / scale.where(scale != 0, 1.0)).round().clamp(-128, 127)
    return numbers.to(torch.int8), scale
