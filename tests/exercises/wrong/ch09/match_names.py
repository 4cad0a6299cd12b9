# exercise: 09.2
# says: is b'block 0'; it should be 7
"""The names."""

def longest_match(hashes, known, num_tokens, block_size):
    blocks = []
    for name in hashes[: (num_tokens - 1) // block_size]:
        if name not in known:
            break
        blocks.append(name)
    return blocks
