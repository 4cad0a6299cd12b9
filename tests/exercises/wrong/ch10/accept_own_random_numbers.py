# exercise: 10.1
# says: does not depend on
"""Random numbers of its own."""

import torch

from minillm.course.verifier import draw
from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    for i, x in enumerate(drafts):
        if torch.rand(()).item() >= float(p[i, x]) / float(q[i, x]):
            return drafts[:i] + [draw((p[i] - q[i]).clamp(min=0), torch.rand(()).item())]
    return drafts + [draw(p[-1], torch.rand(()).item())]
