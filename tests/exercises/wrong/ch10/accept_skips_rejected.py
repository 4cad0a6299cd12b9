# exercise: 10.1
# says: skips rejected drafts
"""Rejected drafts are skipped, and later ones are kept."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    tokens = [x for i, x in enumerate(drafts) if random(Stream.ACCEPT, i) < float(p[i, x]) / float(q[i, x])]
    n = len(tokens)
    if n < len(drafts):
        return tokens + [draw((p[n] - q[n]).clamp(min=0), random(Stream.RESIDUAL, n))]
    return tokens + [draw(p[n], random(Stream.BONUS, n))]
