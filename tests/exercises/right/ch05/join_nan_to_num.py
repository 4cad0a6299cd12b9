# exercise: 05.3
"""Unwritten rows by nan_to_num: whatever they hold is finite then, and times 0."""

import torch


def join(parts, lse):
    top = lse.amax(0)
    top = torch.where(top == -torch.inf, 0.0, top)
    weight = torch.exp(lse - top)
    total = weight.sum(0)
    written = parts.nan_to_num()
    out = (written * weight[..., None]).sum(0) / torch.where(total == 0, 1.0, total)[:, None]
    return out, top + torch.log(total)
