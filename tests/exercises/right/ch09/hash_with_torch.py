# exercise: 09.1
"""The bytes of a tensor."""

from hashlib import sha256

import torch


def extend_hashes(hashes, token_ids, block_size, root):
    full = len(token_ids) // block_size
    for row in torch.tensor(token_ids[: full * block_size]).view(full, block_size)[len(hashes) :]:
        hashes.append(sha256((hashes[-1] if hashes else root) + row.numpy().tobytes()).digest())
