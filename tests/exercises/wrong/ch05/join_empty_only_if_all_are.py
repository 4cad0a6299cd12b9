# exercise: 05.3
# says: no keys in any part
"""Only the case that no head has a key."""

import torch


def join(parts, lse):
    top = lse.amax(0)
    if (top == -torch.inf).all():
        return torch.zeros_like(parts[0]), top
    weight = torch.exp(lse - top)
    total = weight.sum(0)
    written = parts.masked_fill((weight == 0)[..., None], 0.0)
    out = (written * weight[..., None]).sum(0) / torch.where(total == 0, 1.0, total)[:, None]
    return out, top + torch.log(total)
