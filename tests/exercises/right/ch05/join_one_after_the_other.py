# exercise: 05.3
"""Part by part, each joined to what is there."""

import torch


def join(parts, lse):
    out, so_far = torch.zeros_like(parts[0]), torch.full_like(lse[0], -torch.inf)
    for part, part_lse in zip(parts, lse, strict=True):
        both = torch.logaddexp(so_far, part_lse)
        some = part_lse > -torch.inf
        keep = torch.where(so_far > -torch.inf, torch.exp(so_far - both), 0.0)
        take = torch.where(some, torch.exp(part_lse - both), 0.0)
        out = out * keep[:, None] + torch.where(some[:, None], part, 0.0) * take[:, None]
        so_far = both
    return out, so_far
