# exercise: 06.1
"""Multiplies by steps per weight, and rounds halves away from zero."""

import torch


def quantise_rows(weight):

    largest = torch.linalg.vector_norm(weight, ord=torch.inf, dim=1)
    steps = 127.5 / largest.where(largest > 0, 1.0)
    x = weight.double() * steps.double()[:, None]
    numbers = torch.sign(x) * torch.floor(x.abs() + 0.5)
    return numbers.clamp(-128, 127).to(torch.int8), largest / 127.5
