# exercise: 11.3
# says: results themselves
"""A tensor is written if a later operation reads it: the results have no reader here."""

def bytes_moved(chain, kernels, sizes, results):
    moved, start = 0, 0
    for length in kernels:
        inside, later = chain[start : start + length], chain[start + length :]
        made = {output for output, _ in inside}
        read = {n for _, inputs in inside for n in inputs} - made
        wanted = {n for _, inputs in later for n in inputs}
        moved += sum(sizes[name] for name in read | (made & wanted))
        start += length
    return moved
