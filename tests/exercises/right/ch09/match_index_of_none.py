# exercise: 09.2
"""By None."""

def longest_match(hashes, known, num_tokens, block_size):
    blocks = [known.get(name) for name in hashes[: (num_tokens - 1) // block_size]] + [None]
    return blocks[: blocks.index(None)]
