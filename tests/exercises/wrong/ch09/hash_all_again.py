# exercise: 09.1
# says: named a second time
"""It begins with the first block, whatever is there already."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    parent = root
    for start in range(0, len(token_ids) - block_size + 1, block_size):
        parent = sha256(parent + array("q", token_ids[start : start + block_size]).tobytes()).digest()
        hashes.append(parent)
