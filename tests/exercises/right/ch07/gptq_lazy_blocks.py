# exercise: 07.2
"""Blocks of 16 with a lazy update."""

import torch


def gptq(weight, hessian, scale, bits=4, damping=0.01):
    columns, w = weight.shape[1], weight.double()
    h, half = hessian.double(), 2 ** (bits - 1)
    dead = h.diagonal() == 0
    w = torch.where(dead, 0.0, w)
    h = h + torch.diag(dead.double())
    h = h + torch.diag((damping * h.diagonal().mean()).expand(columns))
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    steps = scale.double().repeat_interleave(columns // scale.shape[1], 1)
    out = torch.empty_like(w)
    for a in range(0, columns, 16):
        b = min(a + 16, columns)
        block, errors = w[:, a:b].clone(), torch.empty(len(w), b - a, dtype=torch.double)
        for i in range(b - a):
            s = steps[:, a + i]
            out[:, a + i] = torch.clamp(torch.round(block[:, i] / s), -half, half - 1) * s
            errors[:, i] = (block[:, i] - out[:, a + i]) / U[a + i, a + i]
            block[:, i:] -= errors[:, i : i + 1] * U[a + i, a + i : b]
        w[:, b:] -= errors @ U[a:b, b:]
    return out.float()
