# exercise: 11.3
# says: once, however many
"""An input is read by each operation that uses it."""

def bytes_moved(chain, kernels, sizes, results):
    moved, start = 0, 0
    for length in kernels:
        inside, later = chain[start : start + length], chain[start + length :]
        made = {output for output, _ in inside}
        for _, inputs in inside:
            moved += sum(sizes[name] for name in inputs if name not in made)
        wanted = {n for _, inputs in later for n in inputs} | set(results)
        moved += sum(sizes[name] for name in made & wanted)
        start += length
    return moved
