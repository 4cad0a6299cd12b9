# exercise: 10.1
# says: the rejected draft itself
"""The step ends one draft too late."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    tokens = []
    for i, x in enumerate(drafts):
        tokens.append(x)
        if random(Stream.ACCEPT, i) >= float(p[i, x]) / float(q[i, x]):
            tokens.append(draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i)))
            return tokens
    return tokens + [draw(p[-1], random(Stream.BONUS, len(drafts)))]
