# exercise: 09.1
# says: the last full block is left out
"""The range ends one too early."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size, block_size):
        parent = hashes[-1] if hashes else root
        hashes.append(sha256(parent + array("q", token_ids[start : start + block_size]).tobytes()).digest())
