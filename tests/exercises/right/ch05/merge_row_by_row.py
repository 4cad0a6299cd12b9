# exercise: 05.1
"""Row by row."""

import torch


def merge(m_a, l_a, acc_a, m_b, l_b, acc_b):
    m, l, acc = m_a.clone(), l_a.clone(), acc_a.clone()
    for r in range(len(m)):
        if m_b[r] == -torch.inf:
            continue
        top = max(m_a[r], m_b[r])
        l[r] = l_a[r] * (m_a[r] - top).exp() + l_b[r] * (m_b[r] - top).exp()
        acc[r] = acc_a[r] * (m_a[r] - top).exp() + acc_b[r] * (m_b[r] - top).exp()
        m[r] = top
    return m, l, acc
