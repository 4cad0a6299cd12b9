# exercise: 09.2
"""By KeyError."""

def longest_match(hashes, known, num_tokens, block_size):
    blocks = []
    for name in hashes[: (num_tokens - 1) // block_size]:
        try:
            blocks.append(known[name])
        except KeyError:
            break
    return blocks
