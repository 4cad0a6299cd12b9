# exercise: 09.2
# says: has 2 entries; 1 are wanted
"""Powers of two only."""

def longest_match(hashes, known, num_tokens, block_size):
    blocks = []
    for name in hashes[: (num_tokens - 1) >> (block_size.bit_length() - 1)]:
        if name not in known:
            break
        blocks.append(known[name])
    return blocks
