# exercise: 09.2
"""takewhile."""

from itertools import takewhile


def longest_match(hashes, known, num_tokens, block_size):
    found = [known[name] for name in takewhile(known.__contains__, hashes)]
    return found[: (num_tokens - 1) // block_size]
