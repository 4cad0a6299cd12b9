# exercise: 09.1
# says: their hash() is
"""Python's hash of the tokens, by its method."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root
        tokens = array("q", [tuple(token_ids[start : start + block_size]).__hash__()]).tobytes()
        hashes.append(sha256(parent + tokens).digest())
