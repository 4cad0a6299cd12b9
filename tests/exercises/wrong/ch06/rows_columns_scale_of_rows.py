# exercise: 06.1
# says: for each column
"""The scales are computed along the wrong axis and then used for rows."""

import torch


def quantise_rows(weight):

    scale = weight.abs().amax(dim=0) / 127.5
    scale = scale[: len(weight)]
    return (weight / scale[:, None].clamp_min(1e-9)).round().clamp(-128, 127).to(torch.int8), scale
