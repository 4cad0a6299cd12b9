# exercise: 03.3
"""A group's query heads are so many queries to one KV head; the matmuls read K and V where they are."""


def grouped_attention(q, k, v):
    num_heads, head_dim = q.shape
    num_kv = k.shape[1]
    grouped = q.view(num_kv, num_heads // num_kv, head_dim)
    scores = grouped @ k.permute(1, 2, 0) / head_dim**0.5  # [H_kv, group, s]
    return (scores.softmax(-1) @ v.transpose(0, 1)).reshape(num_heads, head_dim)
