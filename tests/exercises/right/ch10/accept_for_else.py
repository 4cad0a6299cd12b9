# exercise: 10.1
"""for and else, in NumPy."""

import numpy as np

from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    p, q = p.numpy().astype(np.float64), q.numpy().astype(np.float64)
    tokens = []
    for i, x in enumerate(drafts):
        if p[i, x] > random(Stream.ACCEPT, i) * q[i, x]:
            tokens.append(x)
        else:
            weights, u = np.maximum(p[i] - q[i], 0), random(Stream.RESIDUAL, i)
            break
    else:
        weights, u = p[len(drafts)], random(Stream.BONUS, len(drafts))
    sums = np.cumsum(weights)
    return tokens + [int(np.searchsorted(sums, u * sums[-1], side="right"))]
