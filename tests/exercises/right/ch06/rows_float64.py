# exercise: 06.1
"""In float64, with a smallest scale."""

import torch


def quantise_rows(weight):

    w = weight.double()
    scale = (w.abs().max(dim=1).values / 127.5).clamp_min(1e-30)
    return torch.round(w / scale.unsqueeze(1)).clamp_(-128, 127).char(), scale.float()
