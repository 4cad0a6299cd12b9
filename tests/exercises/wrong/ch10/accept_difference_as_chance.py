# exercise: 10.1
# says: the wrong drafts are kept
"""The chance is p - q."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) >= 1 - max(0.0, float(q[i, x]) - float(p[i, x])):
            return drafts[:i] + [draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i))]
    return drafts + [draw(p[-1], random(Stream.BONUS, len(drafts)))]
