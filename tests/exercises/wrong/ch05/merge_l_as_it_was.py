# exercise: 05.1
# says: acc is rescaled, but l is not
"""acc is brought to the common maximum, l is not."""

import torch


def merge(m_a, l_a, acc_a, m_b, l_b, acc_b):
    m = torch.maximum(m_a, m_b)
    base = torch.where(m == -torch.inf, 0.0, m)
    fade_a, fade_b = torch.exp(m_a - base), torch.exp(m_b - base)
    acc = acc_a * fade_a[:, None] + acc_b * fade_b[:, None]
    return m, l_a + l_b, acc
