# exercise: 01.2
"""A lambda."""

softmax = lambda x: (lambda e: e / e.sum(-1, keepdim=True))((x - x.amax(-1, keepdim=True)).exp())
