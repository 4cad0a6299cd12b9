# exercise: 05.1
# says: the second half's maximum
"""The second half is taken to have the larger maximum, as a new tile often has."""

import torch


def merge(m_a, l_a, acc_a, m_b, l_b, acc_b):
    fade = torch.exp(m_a - m_b)
    return m_b, l_a * fade + l_b, acc_a * fade[:, None] + acc_b
