# exercise: 04.4
"""One helper puts a new block in its place."""

class Sequence:
    def __init__(self, allocator, block_size):
        self.allocator, self.block_size = allocator, block_size
        self.block_table = []
        self.num_tokens = 0

    def append(self):
        index, place = divmod(self.num_tokens, self.block_size)
        old = self.block_table[index : index + 1]
        copy = None
        if not old or self.allocator.holders(old[0]) != 1:
            new = self.allocator.allocate()
            if new is None:
                return None
            self.block_table[index : index + 1] = [new]
            for block in old:
                self.allocator.free(block)
                copy = (block, new)
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
