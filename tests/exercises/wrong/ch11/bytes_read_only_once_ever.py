# exercise: 11.3
# says: reads it again
"""A tensor is read from memory once in the whole chain."""

def bytes_moved(chain, kernels, sizes, results):
    moved, start, seen = 0, 0, set()
    for length in kernels:
        inside, later = chain[start : start + length], chain[start + length :]
        made = {output for output, _ in inside}
        read = {n for _, inputs in inside for n in inputs} - made
        wanted = {n for _, inputs in later for n in inputs} | set(results)
        moved += sum(sizes[name] for name in (read - seen) | (made & wanted))
        seen |= read
        start += length
    return moved
