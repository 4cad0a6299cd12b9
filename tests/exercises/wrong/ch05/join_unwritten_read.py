# exercise: 05.3
# says: never written
"""0 times what stands where nothing was written."""

import torch


def join(parts, lse):
    top = lse.amax(0)
    top = torch.where(top == -torch.inf, 0.0, top)
    weight = torch.exp(lse - top)
    total = weight.sum(0)
    out = torch.einsum("phd,ph->hd", parts, weight) / torch.where(total == 0, 1.0, total)[:, None]
    return out, top + torch.log(total)
