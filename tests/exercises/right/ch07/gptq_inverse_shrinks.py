# exercise: 07.2
"""Optimal brain quantisation in order: the inverse of the remaining columns is updated."""

import torch


def gptq(weight, hessian, scale, bits=4, damping=0.01):
    h = hessian.double().clone()
    dead = h.diagonal() == 0
    h[dead, dead] = 1.0
    h += damping * h.diagonal().mean() * torch.eye(len(h))
    inverse = torch.linalg.inv(h)
    w, done = weight.masked_fill(dead, 0.0).double(), []
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    group = weight.shape[1] // scale.shape[1]
    for j in range(weight.shape[1]):
        s = scale[:, j // group].double()
        value = (w[:, 0] / s).round().clamp(low, high) * s
        w = (w - ((w[:, 0] - value) / inverse[0, 0])[:, None] * inverse[0])[:, 1:]
        inverse = (inverse - torch.outer(inverse[:, 0], inverse[0]) / inverse[0, 0])[1:, 1:]
        done.append(value)
    return torch.stack(done, 1).float()
