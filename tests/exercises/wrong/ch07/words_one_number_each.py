# exercise: 07.1
# says: words of 32 bits
"""Nothing is packed."""

import torch


class Words:
    def __init__(self, numbers):
        self.words = numbers.to(torch.int32)

    def numbers(self):
        return self.words.to(torch.uint8)

    def weights(self, scale):
        q = self.numbers().float().unflatten(1, (scale.shape[1], -1))
        return ((q - 8) * scale[..., None]).flatten(1)
