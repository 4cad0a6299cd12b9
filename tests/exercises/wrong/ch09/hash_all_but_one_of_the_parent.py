# exercise: 09.1
# says: byte 31 of the parent's name makes no difference
"""All bytes of the parent but the last."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root
        tokens = array("q", token_ids[start : start + block_size]).tobytes()
        hashes.append(sha256(parent[:31] + tokens).digest())
