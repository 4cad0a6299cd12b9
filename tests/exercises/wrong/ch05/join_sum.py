# exercise: 05.3
# says: added up
"""The parts are added."""

import torch


def join(parts, lse):
    written = parts.masked_fill((lse == -torch.inf)[..., None], 0.0)
    return written.sum(0), lse.logsumexp(0)
