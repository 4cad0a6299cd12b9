# exercise: 09.1
# says: more than one byte
"""One byte a token."""

from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root
        hashes.append(sha256(parent + bytes(t % 256 for t in token_ids[start : start + block_size])).digest())
