# exercise: 09.2
# says: cannot be found by halving
"""A binary search for the end of the known prefix."""


def longest_match(hashes, known, num_tokens, block_size):
    low, high = 0, (num_tokens - 1) // block_size
    while low < high:
        middle = (low + high) // 2
        if hashes[middle] in known:
            low = middle + 1
        else:
            high = middle
    return [known.get(name, 0) for name in hashes[:low]]
