# exercise: 10.1
# says: float32
"""The ratio is a float32 tensor."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        if random(Stream.ACCEPT, i) >= p[i, x] / q[i, x]:
            return drafts[:i] + [draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i))]
    return drafts + [draw(p[-1], random(Stream.BONUS, len(drafts)))]
