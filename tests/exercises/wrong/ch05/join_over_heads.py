# exercise: 05.3
# says: over the heads
"""The softmax runs over the heads."""

import torch


def join(parts, lse):
    weight = lse.softmax(1)
    written = parts.masked_fill((lse == -torch.inf)[..., None], 0.0)
    return torch.einsum("phd,ph->hd", written, weight), lse.logsumexp(0)
