# exercise: 10.1
"""The first draft, then the rest."""

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    return step(p, q, drafts, random, 0)


def step(p, q, drafts, random, i):
    if i == len(drafts):
        return [draw(p[i], random(Stream.BONUS, i))]
    x = drafts[i]
    if random(Stream.ACCEPT, i) < min(1.0, p[i][x].item() / q[i][x].item()):
        return [x] + step(p, q, drafts, random, i + 1)
    return [draw((p[i] - q[i]).clamp(0), random(Stream.RESIDUAL, i))]
