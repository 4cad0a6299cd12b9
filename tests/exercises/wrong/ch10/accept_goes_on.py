# exercise: 10.1
# says: the drafts after a rejected one
"""A rejected draft is corrected, and the loop goes on."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    tokens = []
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) < float(p[i, x]) / float(q[i, x]):
            tokens.append(x)
        else:
            tokens.append(draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i)))
    tokens.append(draw(p[len(drafts)], random(Stream.BONUS, len(drafts))))
    return tokens
