# exercise: 11.3
"""islice."""

def bytes_moved(chain, kernels, sizes, results):
    moved, start = 0, 0
    last = {name: i for i, (_, inputs) in enumerate(chain) for name in inputs}
    for length in kernels:
        inside = chain[start : start + length]
        made = {output for output, _ in inside}
        read = {name for _, inputs in inside for name in inputs} - made
        end = start + length
        wanted = {n for n in made if last.get(n, -1) >= end or n in results}
        moved += sum(sizes[name] for name in read | (made & wanted))
        start += length
    return moved
