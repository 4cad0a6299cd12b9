# exercise: 05.3
# says: the attention is wrong in 4 of 8 places
"""The largest is never below 0: lse of -1000 underflow."""

import torch


def join(parts, lse):
    top = lse.amax(0)
    top = top.clamp(min=0.0)
    weight = torch.exp(lse - top)
    total = weight.sum(0)
    written = parts.masked_fill((weight == 0)[..., None], 0.0)
    out = (written * weight[..., None]).sum(0) / torch.where(total == 0, 1.0, total)[:, None]
    return out, top + torch.log(total)
