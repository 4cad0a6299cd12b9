# exercise: 05.3
# says: the attention is wrong in 8 of 8 places
"""What was not written is found by its NaN, and its lse is not asked."""

import torch


def join(parts, lse):
    top = lse.amax(0)
    top = torch.where(top == -torch.inf, 0.0, top)
    weight = torch.exp(lse - top) + 0.1 * (lse == -torch.inf) * ~parts[..., 0].isnan()
    total = weight.sum(0)
    written = parts.nan_to_num()
    out = (written * weight[..., None]).sum(0) / torch.where(total == 0, 1.0, total)[:, None]
    return out, top + torch.log(total)
