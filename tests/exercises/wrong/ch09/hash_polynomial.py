# exercise: 09.1
# says: a polynomial in 31 is the same for both
"""A polynomial of the tokens, modulo a prime."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root
        tokens = array("q", [sum(t * 31**i for i, t in enumerate(token_ids[start : start + block_size])) % 1000003]).tobytes()
        hashes.append(sha256(parent + tokens).digest())
