# exercise: 11.3
# says: is 23502000
"""x · x reads x twice."""

def bytes_moved(chain, kernels, sizes, results):
    moved, start = 0, 0
    for length in kernels:
        inside, later = chain[start : start + length], chain[start + length :]
        made = {output for output, _ in inside}
        read = {name for _, inputs in inside for name in inputs} - made
        wanted = {name for _, inputs in later for name in inputs} | set(results)
        moved += sum(sizes[name] for name in read | (made & wanted)) + sum(sizes[n] for _, inputs in inside for n in set(inputs) - made if inputs.count(n) > 1)
        start += length
    return moved
