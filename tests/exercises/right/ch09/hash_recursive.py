# exercise: 09.1
"""Recursive."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    start = len(hashes) * block_size
    parent = hashes[-1] if hashes else root
    if start + block_size <= len(token_ids):
        tokens = array("q", token_ids[start : start + block_size]).tobytes()
        hashes.append(sha256(parent + tokens).digest())
        extend_hashes(hashes, token_ids, block_size, root)
