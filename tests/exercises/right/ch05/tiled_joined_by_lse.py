# exercise: 05.2
"""A finished softmax of each tile, joined to what is there by their log-sum-exps, head by head."""

import torch


def tiled_attention(q, k, v, block):
    past, scale = k.shape[0] - q.shape[0], q.shape[-1] ** -0.5
    out = torch.zeros_like(q)
    for head in range(q.shape[1]):
        for first in range(0, q.shape[0], block):
            rows = q[first : first + block, head]
            last = past + first + rows.shape[0] - 1
            so_far, lse = torch.zeros_like(rows), torch.full((rows.shape[0], 1), -torch.inf)
            # Backwards: the tile on the diagonal first.
            for start in reversed(range(0, last + 1, block)):
                keys = k[start : start + block, head]
                s = rows @ keys.T * scale
                position = torch.arange(past + first, last + 1)[:, None]
                s[torch.arange(start, start + keys.shape[0]) > position] = -torch.inf
                tile_lse = s.logsumexp(-1, keepdim=True)
                seen = tile_lse > -torch.inf
                both = torch.where(seen, torch.logaddexp(lse, tile_lse), lse)
                weights = torch.where(seen, (s - torch.where(seen, both, 0)).exp(), 0)
                keep = torch.where(both > -torch.inf, (lse - both).exp(), 0)
                so_far = so_far * keep + weights @ v[start : start + block, head]
                lse = both
            out[first : first + block, head] = so_far
    return out
