# exercise: 11.3
# says: a later kernel reads
"""A kernel writes what its last operation makes."""

def bytes_moved(chain, kernels, sizes, results):
    moved, start = 0, 0
    for length in kernels:
        inside = chain[start : start + length]
        made = {output for output, _ in inside}
        read = {n for _, inputs in inside for n in inputs} - made
        moved += sum(sizes[name] for name in read) + sizes[inside[-1][0]]
        start += length
    return moved
