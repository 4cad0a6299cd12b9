# exercise: 10.1
# says: only if it is the argmax
"""A draft is accepted if it is the model's most likely token."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        if x != p[i].argmax():
            return drafts[:i] + [draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i))]
    return drafts + [draw(p[-1], random(Stream.BONUS, len(drafts)))]
