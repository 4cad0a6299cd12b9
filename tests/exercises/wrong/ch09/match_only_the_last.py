# exercise: 09.2
# says: all of the prefix's blocks
"""The deepest known block, as if it stood for those before it."""


def longest_match(hashes, known, num_tokens, block_size):
    last = []
    for name in hashes[: (num_tokens - 1) // block_size]:
        if name not in known:
            break
        last = [known[name]]
    return last
