# exercise: 05.1
# says: float64
"""float64."""

import torch


def merge(m_a, l_a, acc_a, m_b, l_b, acc_b):
    m = torch.maximum(m_a, m_b)
    base = torch.where(m == -torch.inf, 0.0, m)
    fade_a, fade_b = torch.exp((m_a - base).double()), torch.exp((m_b - base).double())
    return m, l_a * fade_a + l_b * fade_b, acc_a * fade_a[:, None] + acc_b * fade_b[:, None]
