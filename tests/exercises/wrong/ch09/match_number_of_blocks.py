# exercise: 09.2
# says: is a int (3)
"""How many."""

def longest_match(hashes, known, num_tokens, block_size):
    blocks = []
    for name in hashes[: (num_tokens - 1) // block_size]:
        if name not in known:
            break
        blocks.append(known[name])
    return len(blocks)
