# exercise: 09.1
"""The tokens as text, with commas between."""

from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    parent = [root, *hashes][-1]
    for block in range(len(hashes), len(token_ids) // block_size):
        tokens = token_ids[block * block_size : (block + 1) * block_size]
        parent = sha256(parent + ",".join(map(str, tokens)).encode()).digest()
        hashes += [parent]
