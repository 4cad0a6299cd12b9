# exercise: 07.3
"""The inputs are divided, as the engine does; in float64."""

import torch

from minillm.quantization.absmax import Grid


def awq_scales(weight, x, bits=4, group_size=32):
    size, out = x.abs().double().mean(0), {}
    for alpha in [i / 20 for i in range(20)]:
        s = (size**alpha).clamp_min(1e-4)
        s = (s / (s.min() * s.max()) ** 0.5).float()
        grid = Grid.of(weight * s, bits, group_size)
        y = (x / s).double() @ grid.dequantise(grid.round(weight * s)).double().T
        out[float((y - x.double() @ weight.double().T).norm())] = s
    return out[min(out)]
