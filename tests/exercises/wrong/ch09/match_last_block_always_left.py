# exercise: 09.2
# says: that block holds no last token
"""The last full block is computed again, whatever comes after it."""


def longest_match(hashes, known, num_tokens, block_size):
    blocks = []
    for name in hashes[:-1]:
        if name not in known:
            break
        blocks.append(known[name])
    return blocks
