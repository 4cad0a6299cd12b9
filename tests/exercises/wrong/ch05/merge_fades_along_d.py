# exercise: 05.1
# says: -0.12364 where -0.49856 is right
"""fade [R] is multiplied along D."""

import torch


def merge(m_a, l_a, acc_a, m_b, l_b, acc_b):
    m = torch.maximum(m_a, m_b)
    base = torch.where(m == -torch.inf, 0.0, m)
    fade_a, fade_b = torch.exp(m_a - base), torch.exp(m_b - base)
    return m, l_a * fade_a + l_b * fade_b, acc_a * fade_a.repeat(2)[: acc_a.shape[1]] + acc_b * fade_b.repeat(2)[: acc_a.shape[1]]
