# exercise: 06.1
# says: rounded down
"""floor for round."""

import torch


def quantise_rows(weight):

    scale = (weight.abs().amax(1) / 127.5).clamp_min(1e-12)
    return (weight / scale[:, None]).floor().clamp(-128, 127).to(torch.int8), scale
