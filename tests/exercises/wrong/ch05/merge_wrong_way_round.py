# exercise: 05.1
# says: the wrong way round
"""exp(m - m_a) for exp(m_a - m)."""

import torch


def merge(m_a, l_a, acc_a, m_b, l_b, acc_b):
    m = torch.maximum(m_a, m_b)
    fade_a, fade_b = torch.exp(m - m_a), torch.exp(m - m_b)
    acc = acc_a * fade_a[:, None] + acc_b * fade_b[:, None]
    return m, l_a * fade_a + l_b * fade_b, acc
