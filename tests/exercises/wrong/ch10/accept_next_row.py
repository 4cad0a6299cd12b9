# exercise: 10.1
# says: judged with p[i + 1]
"""Each draft is judged by the distribution after it."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) >= float(p[i + 1, x]) / float(q[i, x]):
            return drafts[:i] + [draw((p[i + 1] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i))]
    return drafts + [draw(p[-1], random(Stream.BONUS, len(drafts)))]
