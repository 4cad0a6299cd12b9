# exercise: 11.3
# says: is 1733000
"""All results are added at the end, those that were given too."""

def bytes_moved(chain, kernels, sizes, results):
    moved, start = 0, 0
    for length in kernels:
        inside, later = chain[start : start + length], chain[start + length :]
        made = {output for output, _ in inside}
        read = {name for _, inputs in inside for name in inputs} - made
        wanted = {name for _, inputs in later for name in inputs}
        moved += sum(sizes[name] for name in read | (made & wanted))
        start += length
    return moved + sum(sizes[name] for name in results)
