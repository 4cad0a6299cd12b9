# exercise: 05.3
# says: sum to 1
"""exp(lse - top), and no division."""

import torch


def join(parts, lse):
    top = lse.amax(0)
    top = torch.where(top == -torch.inf, 0.0, top)
    weight = torch.exp(lse - top)
    total = weight.sum(0)
    written = parts.masked_fill((weight == 0)[..., None], 0.0)
    return torch.einsum("phd,ph->hd", written, weight), top + torch.log(total)
