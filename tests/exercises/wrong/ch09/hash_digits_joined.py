# exercise: 09.1
# says: nothing is between the ids
"""The ids are written one after the other."""

from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root
        digits = "".join(str(token) for token in token_ids[start : start + block_size])
        hashes.append(sha256(parent + digits.encode()).digest())
