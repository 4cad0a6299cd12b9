# exercise: 05.3
# says: the attention is wrong in 6 of 12 places
"""In float16."""

import torch


def join(parts, lse):
    top = lse.amax(0)
    top = torch.where(top == -torch.inf, 0.0, top)
    weight = torch.exp(lse - top)
    total = weight.sum(0)
    written = parts.masked_fill((weight == 0)[..., None], 0.0)
    out = (written.half() * weight.half()[..., None]).sum(0).float() / torch.where(total == 0, 1.0, total)[:, None]
    return out, top + torch.log(total)
