# exercise: 05.3
# says: the largest of the parts'
"""The largest log-sum-exp is taken for that of all."""

import torch


def join(parts, lse):
    top = lse.amax(0)
    top = torch.where(top == -torch.inf, 0.0, top)
    weight = torch.exp(lse - top)
    total = weight.sum(0)
    written = parts.masked_fill((weight == 0)[..., None], 0.0)
    out = torch.einsum("phd,ph->hd", written, weight) / torch.where(total == 0, 1.0, total)[:, None]
    return out, lse.amax(0)
