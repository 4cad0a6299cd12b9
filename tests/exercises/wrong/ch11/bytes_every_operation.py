# exercise: 11.3
# says: as if every operation were a kernel
"""The cuts are not looked at."""

def bytes_moved(chain, kernels, sizes, results):
    return sum(sizes[output] + sum(sizes[name] for name in inputs) for output, inputs in chain)
