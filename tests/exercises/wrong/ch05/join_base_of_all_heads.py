# exercise: 05.3
# says: the attention is wrong in 4 of 8 places
"""One maximum for all heads."""

import torch


def join(parts, lse):
    top = lse.max().expand(lse.shape[1])
    top = torch.where(top == -torch.inf, 0.0, top)
    weight = torch.exp(lse - top)
    total = weight.sum(0)
    written = parts.masked_fill((weight == 0)[..., None], 0.0)
    out = (written * weight[..., None]).sum(0) / torch.where(total == 0, 1.0, total)[:, None]
    return out, top + torch.log(total)
