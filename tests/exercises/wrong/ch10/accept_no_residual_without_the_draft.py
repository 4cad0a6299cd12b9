# exercise: 10.1
# says: only the rejected draft is excluded
"""The corrected token is drawn from p without the draft."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) >= float(p[i, x]) / float(q[i, x]):
            others = p[i].clone()
            others[x] = 0
            return drafts[:i] + [draw(others, random(Stream.RESIDUAL, i))]
    return drafts + [draw(p[-1], random(Stream.BONUS, len(drafts)))]
