# exercise: 11.3
"""From the tensors' side: who makes each, and how many kernels read it."""

def bytes_moved(chain, kernels, sizes, results):
    kernel_of = [number for number, length in enumerate(kernels) for _ in range(length)]
    maker = {output: number for (output, _), number in zip(chain, kernel_of)}
    readers = {name: set() for name in sizes}
    for (_, inputs), number in zip(chain, kernel_of):
        for name in inputs:
            if maker.get(name) != number:
                readers[name].add(number)
    moved = 0
    for name, size in sizes.items():
        moved += size * len(readers[name])
        if name in maker and (readers[name] or name in results):
            moved += size
    return moved
