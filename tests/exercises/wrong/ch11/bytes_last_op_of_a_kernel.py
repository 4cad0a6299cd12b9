# exercise: 11.3
# says: a later kernel reads
"""Only the last output of a kernel is written, and results."""

def bytes_moved(chain, kernels, sizes, results):
    moved, start = 0, 0
    for length in kernels:
        inside, later = chain[start : start + length], chain[start + length :]
        made = {output for output, _ in inside}
        read = {name for _, inputs in inside for name in inputs} - made
        wanted = {name for _, inputs in later for name in inputs} | set(results)
        moved += sum(sizes[name] for name in read | ((made & wanted) & ({inside[-1][0]} | set(results))))
        start += length
    return moved
