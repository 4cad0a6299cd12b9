# exercise: 11.3
"""From the back."""

def bytes_moved(chain, kernels, sizes, results):
    moved, end, wanted = 0, len(chain), set(results)
    for length in reversed(kernels):
        made = {output for output, _ in chain[end - length : end]}
        read = {name for _, inputs in chain[end - length : end] for name in inputs if name not in made}
        moved += sum(map(sizes.get, read)) + sum(map(sizes.get, made & wanted))
        wanted |= read
        end -= length
    return moved
