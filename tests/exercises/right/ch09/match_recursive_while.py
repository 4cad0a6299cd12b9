# exercise: 09.2
"""while."""

def longest_match(hashes, known, num_tokens, block_size):
    n = 0
    while n < len(hashes) and (n + 1) * block_size < num_tokens and hashes[n] in known:
        n += 1
    return [known[name] for name in hashes[:n]]
