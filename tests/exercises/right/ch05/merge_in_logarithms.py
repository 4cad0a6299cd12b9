# exercise: 05.1
"""The sums as log-sum-exps, row by row in Python's own floats."""

import math


def merge(m_a, l_a, acc_a, m_b, l_b, acc_b):
    m, l, acc = m_a.clone(), l_a.clone(), acc_a.clone()
    for row in range(len(m_a)):
        tops = [float(m_a[row]), float(m_b[row])]
        top = max(tops)
        if top == -math.inf:
            continue
        fades = [math.exp(t - top) for t in tops]
        m[row] = top
        l[row] = fades[0] * l_a[row] + fades[1] * l_b[row]
        acc[row] = fades[0] * acc_a[row] + fades[1] * acc_b[row]
    return m, l, acc
