# exercise: 10.1
# says: only accepted drafts
"""A rejection ends the step without a token."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) >= float(p[i, x]) / float(q[i, x]):
            return drafts[:i]
    return drafts + [draw(p[-1], random(Stream.BONUS, len(drafts)))]
