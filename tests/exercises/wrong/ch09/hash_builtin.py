# exercise: 09.1
# says: is a int
"""Python's own hash."""


def extend_hashes(hashes, token_ids, block_size, root):
    for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root
        hashes.append(hash((parent, tuple(token_ids[start : start + block_size]))))
