# exercise: 04.1
"""Counts and places in numpy arrays: what comes back are numpy integers."""

import numpy as np


class Allocator:
    def __init__(self, num_blocks):
        self.counts = np.zeros(num_blocks, dtype=np.int64)
        self.place = np.arange(num_blocks)
        self.first, self.last = 0, num_blocks

    @property
    def num_free(self):
        return (self.counts == 0).sum()

    def holders(self, block):
        return self.counts[block]

    def allocate(self):
        if not self.num_free:
            return None
        block = np.where(self.counts == 0, self.place, np.iinfo(np.int64).max).argmin()
        self.counts[block] = 1
        return block

    def share(self, block):
        self.counts[block] += 1

    def free(self, block, keep=False):
        if self.counts[block] == 0:
            raise ValueError(f"block {block} is free already")
        self.counts[block] -= 1
        if self.counts[block] == 0:
            if keep:
                self.place[block] = self.last
                self.last += 1
            else:
                self.first -= 1
                self.place[block] = self.first
