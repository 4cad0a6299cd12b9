# exercise: 09.1
# says: the same tokens in another place
"""A block is named by its tokens."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        hashes.append(sha256(root + array("q", token_ids[start : start + block_size]).tobytes()).digest())
