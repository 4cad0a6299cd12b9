# exercise: 09.2
# says: is a int (3)
"""How many, not which."""


def longest_match(hashes, known, num_tokens, block_size):
    count = 0
    for name in hashes[: (num_tokens - 1) // block_size]:
        if name not in known:
            break
        count += 1
    return count
