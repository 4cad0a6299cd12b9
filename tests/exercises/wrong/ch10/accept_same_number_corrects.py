# exercise: 10.1
# says: the number that rejected the draft
"""One random number per row."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        u = random(Stream.ACCEPT, i)
        if u >= float(p[i, x]) / float(q[i, x]):
            return drafts[:i] + [draw((p[i] - q[i]).clamp(min=0), u)]
    return drafts + [draw(p[-1], random(Stream.BONUS, len(drafts)))]
