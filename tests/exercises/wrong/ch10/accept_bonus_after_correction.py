# exercise: 10.1
# says: a bonus token after the corrected one
"""There is always a bonus token."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    tokens = []
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) < float(p[i, x]) / float(q[i, x]):
            tokens.append(x)
            continue
        tokens.append(draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i)))
        break
    tokens.append(draw(p[-1], random(Stream.BONUS, len(drafts))))
    return tokens
