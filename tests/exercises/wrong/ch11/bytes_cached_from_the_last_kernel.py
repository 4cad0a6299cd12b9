# exercise: 11.3
# says: is 1381000
"""What the kernel before wrote is still in its cache."""

def bytes_moved(chain, kernels, sizes, results):
    moved, start, before = 0, 0, set()
    for length in kernels:
        inside, later = chain[start : start + length], chain[start + length :]
        made = {output for output, _ in inside}
        read = {name for _, inputs in inside for name in inputs} - made - before
        wanted = {name for _, inputs in later for name in inputs} | set(results)
        moved += sum(sizes[name] for name in read | (made & wanted))
        start += length
        before = made
    return moved
