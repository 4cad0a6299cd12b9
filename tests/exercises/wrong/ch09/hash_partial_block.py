# exercise: 09.1
# says: has no name yet
"""What is left at the end is named too."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids), block_size):
        parent = hashes[-1] if hashes else root
        hashes.append(sha256(parent + array("q", token_ids[start : start + block_size]).tobytes()).digest())
