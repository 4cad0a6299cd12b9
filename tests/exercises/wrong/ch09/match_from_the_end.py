# exercise: 09.2
# says: beyond an unknown one
"""Up to the last known one."""

def longest_match(hashes, known, num_tokens, block_size):
    n = (num_tokens - 1) // block_size
    while n and hashes[n - 1] not in known:
        n -= 1
    return [known[name] for name in hashes[:n] if name in known]
