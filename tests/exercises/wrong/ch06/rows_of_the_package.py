# exercise: 06.1
# says: minillm
"""The package's own grid."""

import torch


def quantise_rows(weight):

    from minillm.quantization.absmax import Grid

    packed = Grid.of(weight, 8).pack(Grid.of(weight, 8).round(weight))
    return packed.numbers, packed.scale[:, 0]
