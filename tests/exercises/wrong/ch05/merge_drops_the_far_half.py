# exercise: 05.1
# says: -1.8951 where -1.9477 is right
"""A half whose maximum is 10 below the other is left out."""

import torch


def merge(m_a, l_a, acc_a, m_b, l_b, acc_b):
    m = torch.maximum(m_a, m_b)
    base = torch.where(m == -torch.inf, 0.0, m)
    fade_a, fade_b = torch.exp(m_a - base), torch.where(m_b < m_a - 10, 0.0, torch.exp(m_b - base))
    return m, l_a * fade_a + l_b * fade_b, acc_a * fade_a[:, None] + acc_b * fade_b[:, None]
