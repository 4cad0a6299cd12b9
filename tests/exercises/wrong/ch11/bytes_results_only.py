# exercise: 11.3
# says: between kernels
"""Only the results are written, as if a kernel handed its tensors to the next."""

def bytes_moved(chain, kernels, sizes, results):
    moved, start = 0, 0
    for length in kernels:
        inside = chain[start : start + length]
        made = {output for output, _ in inside}
        read = {n for _, inputs in inside for n in inputs} - made
        moved += sum(sizes[name] for name in read | (made & set(results)))
        start += length
    return moved
