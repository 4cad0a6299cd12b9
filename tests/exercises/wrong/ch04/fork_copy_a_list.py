# exercise: 04.4
# says: (from, to)
"""slot and copy as lists."""

class Sequence:
    def __init__(self, allocator, block_size):
        self.allocator, self.block_size = allocator, block_size
        self.block_table = []
        self.num_tokens = 0

    def append(self):
        index, place = divmod(self.num_tokens, self.block_size)
        copy = None
        if index == len(self.block_table):
            block = self.allocator.allocate()
            if block is None:
                return None
            self.block_table.append(block)
        elif self.allocator.holders(self.block_table[index]) > 1:
            block = self.allocator.allocate()
            if block is None:
                return None
            copy = [self.block_table[index], block]
            self.allocator.free(self.block_table[index])
            self.block_table[index] = block
        self.num_tokens += 1
        return self.block_table[index] * self.block_size + place, copy

    def fork(self):
        child = Sequence(self.allocator, self.block_size)
        child.block_table, child.num_tokens = list(self.block_table), self.num_tokens
        for block in self.block_table:
            self.allocator.share(block)
        return child

    def free(self):
        for block in self.block_table:
            self.allocator.free(block)
        self.block_table, self.num_tokens = [], 0
