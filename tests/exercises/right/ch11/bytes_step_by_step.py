# exercise: 11.3
"""The chain is walked over once, with the tensors that are in registers now."""

def bytes_moved(chain, kernels, sizes, results):
    moved, operations, later = 0, iter(chain), list(chain)
    for length in kernels:
        registers, made = set(), []
        for _ in range(length):
            output, inputs = next(operations)
            later.pop(0)
            for name in inputs:
                if name not in registers:
                    moved += sizes[name]
                    registers.add(name)
            registers.add(output)
            made.append(output)
        for name in made:
            if name in results or any(name in inputs for _, inputs in later):
                moved += sizes[name]
    return moved
