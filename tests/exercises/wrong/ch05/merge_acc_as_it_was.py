# exercise: 05.1
# says: l is rescaled, but acc is not
"""l is brought to the common maximum, acc is not."""

import torch


def merge(m_a, l_a, acc_a, m_b, l_b, acc_b):
    m = torch.maximum(m_a, m_b)
    base = torch.where(m == -torch.inf, 0.0, m)
    fade_a, fade_b = torch.exp(m_a - base), torch.exp(m_b - base)
    return m, l_a * fade_a + l_b * fade_b, acc_a + acc_b
