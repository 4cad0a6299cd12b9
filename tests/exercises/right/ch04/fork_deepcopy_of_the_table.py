# exercise: 04.4
"""Asks for free blocks before it does anything."""

import copy as copying


class Sequence:
    def __init__(self, allocator, block_size):
        self.allocator, self.block_size = allocator, block_size
        self.block_table = []
        self.num_tokens = 0

    def append(self):
        full = self.num_tokens == len(self.block_table) * self.block_size
        shared = not full and self.allocator.holders(self.block_table[-1]) >= 2
        if (full or shared) and self.allocator.num_free == 0:
            return None
        pair = None
        if full:
            self.block_table.append(self.allocator.allocate())
        if shared:
            original = self.block_table.pop()
            self.block_table.append(self.allocator.allocate())
            self.allocator.free(original)
            pair = (original, self.block_table[-1])
        place = self.num_tokens % self.block_size
        self.num_tokens += 1
        return self.block_table[-1] * self.block_size + place, pair

    def fork(self):
        twin = copying.copy(self)
        twin.block_table = copying.deepcopy(self.block_table)
        for block in twin.block_table:
            self.allocator.share(block)
        return twin

    def free(self):
        blocks, self.block_table, self.num_tokens = self.block_table, [], 0
        for block in reversed(blocks):
            self.allocator.free(block)
