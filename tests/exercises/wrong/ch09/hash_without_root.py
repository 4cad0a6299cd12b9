# exercise: 09.1
# says: the root makes no difference
"""The chain begins with nothing."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else b""
        hashes.append(sha256(parent + array("q", token_ids[start : start + block_size]).tobytes()).digest())
