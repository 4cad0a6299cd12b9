# exercise: 04.3
"""Online softmax over the blocks: nothing is gathered."""

import torch


def paged_attention(q, k_cache, v_cache, block_table, seq_len):
    n, num_heads, head_dim = q.shape
    block_size, group = k_cache.shape[1], num_heads // k_cache.shape[2]
    row = torch.arange(seq_len - n, seq_len)[:, None]
    top = torch.full((num_heads, n, 1), -torch.inf)
    total, out = torch.zeros(num_heads, n, 1), torch.zeros(num_heads, n, head_dim)
    for start in range(0, seq_len, block_size):
        block, filled = int(block_table[start // block_size]), min(block_size, seq_len - start)
        k = k_cache[block, :filled].repeat_interleave(group, 1)
        v = v_cache[block, :filled].repeat_interleave(group, 1)
        scores = torch.einsum("nhd,shd->hns", q, k) / head_dim**0.5
        scores = scores.masked_fill(start + torch.arange(filled) > row, -torch.inf)
        higher = torch.maximum(top, scores.amax(-1, keepdim=True))
        weights, old = (scores - higher).exp(), (top - higher).exp()
        total = total * old + weights.sum(-1, keepdim=True)
        out = out * old + torch.einsum("hns,shd->hnd", weights, v)
        top = higher
    return (out / total).transpose(0, 1)
