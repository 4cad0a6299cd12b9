# exercise: 05.3
# says: no keys in any part
"""softmax of nothing but -inf."""

import torch


def join(parts, lse):
    weight = lse.softmax(0)
    written = parts.masked_fill((lse == -torch.inf)[..., None], 0.0)
    return torch.einsum("phd,ph->hd", written, weight), lse.logsumexp(0)
