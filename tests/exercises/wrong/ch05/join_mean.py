# exercise: 05.3
# says: all parts have the same weight
"""Every part counts alike."""

import torch


def join(parts, lse):
    some = lse > -torch.inf
    written = parts.masked_fill(~some[..., None], 0.0)
    out = written.sum(0) / some.sum(0).clamp_min(1)[:, None]
    return out, lse.logsumexp(0)
