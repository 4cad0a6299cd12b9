# exercise: 10.1
# says: the number of row 0
"""One random number judges all drafts."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    u = random(Stream.ACCEPT, 0) if drafts else 0.0
    for i, x in enumerate(drafts):
        if u >= float(p[i, x]) / float(q[i, x]):
            return drafts[:i] + [draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i))]
    return drafts + [draw(p[-1], random(Stream.BONUS, len(drafts)))]
