# exercise: 09.2
# says: beyond an unknown one
"""The longest run, wherever it begins."""

def longest_match(hashes, known, num_tokens, block_size):
    runs = [[]]
    for name in hashes[: (num_tokens - 1) // block_size]:
        if name not in known:
            runs.append([])
        else:
            runs[-1].append(known[name])
    return max(runs, key=len)
