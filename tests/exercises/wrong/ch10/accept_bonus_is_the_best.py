# exercise: 10.1
# says: the most likely token
"""The bonus token is an argmax."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) >= float(p[i, x]) / float(q[i, x]):
            return drafts[:i] + [draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i))]
    return drafts + [int(p[-1].argmax())]
