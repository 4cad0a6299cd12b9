# exercise: 09.1
# says: begins at the root again
"""The loop goes on where it ended, the chain does not."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    parent = root
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = sha256(parent + array("q", token_ids[start : start + block_size]).tobytes()).digest()
        hashes.append(parent)
