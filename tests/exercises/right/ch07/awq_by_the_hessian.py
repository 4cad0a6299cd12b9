# exercise: 07.3
"""The loss by the Hessian, all losses first."""

import torch

from minillm.quantization.absmax import fake_quantise


def awq_scales(weight, x, bits=4, group_size=32):
    hessian = x.double().T @ x.double()
    candidates, losses = [], []
    for r in range(20):
        s = torch.clamp(x.abs().mean(0) ** (r * 0.05), min=1e-4)
        s = s / torch.sqrt(s.max() * s.min())
        off = (fake_quantise(weight * s, bits, group_size) / s - weight).double()
        candidates.append(s)
        losses.append(((off @ hessian) * off).sum())
    return candidates[int(torch.stack(losses).argmin())]
