# exercise: 10.1
"""All ratios at once, and q padded with a row of zeros."""

import torch

from minillm.sampling.random import Stream


def accept_or_correct(p, q, drafts, random):
    p, q, k = p.double(), q.double(), len(drafts)
    x = torch.tensor(drafts, dtype=torch.long)[:, None]
    u = torch.tensor([random(Stream.ACCEPT, i) for i in range(k)], dtype=torch.float64)
    accepted = u < (p[:k].gather(1, x) / q.gather(1, x))[:, 0]
    n = int(accepted.long().cumprod(0).sum())
    rest = (p - torch.cat([q, torch.zeros_like(p[:1])])).clamp(min=0)[n]
    if rest.sum() <= 0:
        rest = p[n]
    sums = rest.cumsum(0)
    v = random(Stream.BONUS if n == k else Stream.RESIDUAL, n)
    return drafts[:n] + [int((sums <= v * sums[-1]).sum())]
