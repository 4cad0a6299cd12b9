# exercise: 07.2
# says: not multiplied by the scale
"""The numbers, not the values."""

import torch


def gptq(weight, hessian, scale, bits=4, damping=0.01):
    w, columns = weight.clone(), weight.shape[1]
    h = hessian.double().clone()
    dead = h.diagonal() == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    h += damping * h.diagonal().mean() * torch.eye(columns)
    U = torch.linalg.cholesky(torch.linalg.inv(h), upper=True).float()
    half = 2 ** (bits - 1)
    size = columns // scale.shape[1]
    for j in range(columns):
        s = scale[:, j // size]
        value = (w[:, j] / s).round().clamp(-half, half - 1) * s
        error = (w[:, j] - value) / U[j, j]
        w[:, j + 1 :] -= torch.outer(error, U[j, j + 1 :])
        w[:, j] = value / s
    return w
