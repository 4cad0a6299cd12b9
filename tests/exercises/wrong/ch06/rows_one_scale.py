# exercise: 06.1
# says: the whole matrix
"""One scale for the matrix."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().max() / 127.5).expand(len(weight))
    return (weight / scale[:, None]).round().clamp(-128, 127).to(torch.int8), scale
