# exercise: 06.2
"""512 columns at a time: each partial sum is exact in float32."""

import torch


def w8a8_linear(x, q_w, s_w):

    tokens = []
    for token in x:
        largest = float(token.abs().max())
        scale = largest / 127.5 if largest else 1.0
        q = torch.clamp(torch.round(token / scale), -128, 127)
        total = torch.zeros(len(q_w), dtype=torch.int64)
        for start in range(0, len(q), 512):
            total += (q_w[:, start : start + 512].float() @ q[start : start + 512]).long()
        tokens.append(total * scale * s_w)
    return torch.stack(tokens).float()
