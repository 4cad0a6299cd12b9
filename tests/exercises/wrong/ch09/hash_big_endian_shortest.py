# exercise: 09.1
# says: each id must take the same number of bytes
"""Each id in one or two bytes."""

from array import array
from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root
        tokens = b"".join(t.to_bytes(1 if t < 256 else 2 if t < 65536 else 4, "big") for t in token_ids[start : start + block_size])
        hashes.append(sha256(parent + tokens).digest())
