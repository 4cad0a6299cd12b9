# exercise: 07.4
# says: wrong way round
"""The copy is the wrong way round."""

import torch


class Int8Cache:
    def __init__(self, num_blocks, block_size, num_heads, head_dim):
        shape = (num_blocks, block_size, num_heads)
        self.block_size = block_size
        self.numbers = [torch.zeros(*shape, head_dim, dtype=torch.int8) for _ in range(2)]
        self.scales = [torch.zeros(shape) for _ in range(2)]

    def write(self, k, v, slots):
        for x, numbers, scales in zip((k, v), self.numbers, self.scales):
            scale = x.abs().amax(-1) / 127
            q = (x / scale.where(scale > 0, 1.0)[..., None]).round()
            numbers.flatten(0, 1)[slots] = q.to(torch.int8)
            scales.flatten(0, 1)[slots] = scale

    def read(self, block_table, seq_len):
        out = []
        for numbers, scales in zip(self.numbers, self.scales):
            x = numbers[block_table].float() * scales[block_table][..., None]
            out.append(x.flatten(0, 1)[:seq_len])
        return tuple(out)

    def copy_block(self, source, target):
        for tensor in (*self.numbers, *self.scales):
            tensor[source] = tensor[target]
