# exercise: 09.2
"""All numbers, cut at the first None; the last block goes if it would leave nothing to compute."""


def longest_match(hashes, known, num_tokens, block_size):
    found = [*map(known.get, hashes), None]
    blocks = found[: found.index(None)]
    return blocks[:-1] if len(blocks) * block_size >= num_tokens else blocks
