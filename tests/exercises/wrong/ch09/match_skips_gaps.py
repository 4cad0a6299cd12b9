# exercise: 09.2
# says: beyond an unknown one
"""All that is known, with holes."""


def longest_match(hashes, known, num_tokens, block_size):
    return [known[name] for name in hashes[: (num_tokens - 1) // block_size] if name in known]
