# exercise: 01.3
"""With the engine's own masks."""

import torch

from minillm.sampling.truncation import top_k_mask, top_p_mask


def distribution(logits, temperature, top_k, top_p):
    row = logits[None] / (temperature or 1)
    if temperature == 0:
        top_k = 1
    if 0 < top_k < len(logits):
        row = torch.where(top_k_mask(row, [top_k]), row, -torch.inf)
    if top_p < 1:
        row = torch.where(top_p_mask(row.softmax(-1), [top_p]), row, -torch.inf)
    return row.softmax(-1)[0]
