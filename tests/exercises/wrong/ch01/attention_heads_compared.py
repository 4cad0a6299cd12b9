# exercise: 01.1
# says: they compare the heads of one token with each other
"""The last two axes of [T, H, D] are multiplied, so the scores are [T, H, H]."""


def causal_attention(q, k, v):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v
