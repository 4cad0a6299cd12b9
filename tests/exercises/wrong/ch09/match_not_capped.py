# exercise: 09.2
# says: nothing is left to compute
"""Every known block is taken, the last too."""


def longest_match(hashes, known, num_tokens, block_size):
    blocks = []
    for name in hashes:
        if name not in known:
            break
        blocks.append(known[name])
    return blocks
