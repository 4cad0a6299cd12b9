# exercise: 10.1
# says: is negative
"""The residual keeps its negative numbers."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) >= float(p[i, x]) / float(q[i, x]):
            return drafts[:i] + [draw(p[i] - q[i], random(Stream.RESIDUAL, i))]
    return drafts + [draw(p[-1], random(Stream.BONUS, len(drafts)))]
