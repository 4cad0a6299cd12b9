# exercise: 10.1
# says: every draft is kept
"""Every draft is accepted."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    k = len(drafts)
    return [*drafts, draw(p[k], random(Stream.BONUS, k))]
