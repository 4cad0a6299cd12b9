# exercise: 10.1
"""Count the accepted drafts, then draw one token."""

from itertools import takewhile

import torch

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    k = len(drafts)
    ok = lambda i: random(Stream.ACCEPT, i) * q[i, drafts[i]].double() < p[i, drafts[i]].double()
    n = sum(1 for _ in takewhile(ok, range(k)))
    stream, weights = (Stream.BONUS, p[k]) if n == k else (Stream.RESIDUAL, torch.relu(p[n] - q[n]))
    return [*drafts[:n], draw(weights, random(stream, n))]
