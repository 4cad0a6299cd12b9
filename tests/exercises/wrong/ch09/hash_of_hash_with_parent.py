# exercise: 09.1
# says: it differs from process to process
"""Python's hash of the parent and the tokens."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root
        tokens = array("q", token_ids[start : start + block_size]).tobytes()
        hashes.append(sha256(str(hash((parent, tokens))).encode()).digest())
