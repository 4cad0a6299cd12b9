# exercise: 09.2
# says: a block may have the number 0
"""get, and what is false is taken for missing."""


def longest_match(hashes, known, num_tokens, block_size):
    blocks = []
    for name in hashes[: (num_tokens - 1) // block_size]:
        block = known.get(name)
        if not block:
            break
        blocks.append(block)
    return blocks
