# exercise: 06.1
# says: row of zeros
"""0 / 0."""

import torch


def quantise_rows(weight):

    scale = weight.abs().amax(1) / 127.5
    numbers = (weight / scale[:, None]).round().clamp(-128, 127)
    if numbers.isnan().any():
        raise ZeroDivisionError("a row of zeros")
    return numbers.to(torch.int8), scale
