# exercise: 03.2
"""One row at a time, in plain Python."""

import torch


def append_mask(num_computed, num_tokens):
    rows = []
    for i in range(num_tokens):
        seen = num_computed + i + 1
        rows.append([True] * seen + [False] * (num_tokens - i - 1))
    return torch.tensor(rows)
