# exercise: 05.3
# says: never written
"""Whether a stretch has keys is asked of head 0."""

import torch


def join(parts, lse):
    top = lse.amax(0)
    top = torch.where(top == -torch.inf, 0.0, top)
    weight = torch.exp(lse - top)
    total = weight.sum(0)
    written = parts.masked_fill((lse[:, :1] == -torch.inf)[..., None], 0.0)
    out = (written * weight[..., None]).sum(0) / torch.where(total == 0, 1.0, total)[:, None]
    return out, top + torch.log(total)
