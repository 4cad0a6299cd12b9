# exercise: 09.1
# says: is a str
"""The digest as text."""

from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root.hex()
        hashes.append(sha256(f"{parent} {token_ids[start : start + block_size]}".encode()).hexdigest())
