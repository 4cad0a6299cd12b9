# exercise: 09.2
# says: is 9; it should be 7
"""In the order of `known`."""

def longest_match(hashes, known, num_tokens, block_size):
    n = 0
    while n < (num_tokens - 1) // block_size and hashes[n] in known:
        n += 1
    return [block for name, block in known.items() if name in hashes[:n]]
