# exercise: 01.2
# says: softmax is what you are writing
"""a distribution that calls it."""

import torch


def softmax(x):
    return torch.distributions.Categorical(logits=x).probs
