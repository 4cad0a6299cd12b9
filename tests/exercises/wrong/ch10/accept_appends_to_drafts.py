# exercise: 10.1
# says: changes its argument `drafts`
"""The list of drafts is extended in place."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) >= float(p[i, x]) / float(q[i, x]):
            return drafts[:i] + [draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i))]
    drafts.append(draw(p[-1], random(Stream.BONUS, len(drafts))))
    return drafts
