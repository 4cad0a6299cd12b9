# exercise: 04.4
"""The cases as methods of their own; the table is a tuple that is never changed in place."""


class Sequence:
    def __init__(self, allocator, block_size, block_table=(), num_tokens=0):
        self.allocator, self.block_size = allocator, block_size
        self.block_table, self.num_tokens = tuple(block_table), num_tokens

    def append(self):
        index = self.num_tokens // self.block_size
        copy = None
        if not self.is_writable(index):
            new = self.allocator.allocate()
            if new is None:
                return None
            for old in self.block_table[index : index + 1]:
                copy = (old, new)
                self.allocator.free(old)
            self.block_table = (*self.block_table[:index], new)
        slot = self.block_table[index] * self.block_size + self.num_tokens % self.block_size
        self.num_tokens += 1
        return slot, copy

    def is_writable(self, index):
        return index < len(self.block_table) and self.allocator.holders(self.block_table[index]) == 1

    def fork(self):
        for block in self.block_table:
            self.allocator.share(block)
        return Sequence(self.allocator, self.block_size, self.block_table, self.num_tokens)

    def free(self):
        while self.block_table:
            *rest, last = self.block_table
            self.allocator.free(last)
            self.block_table = tuple(rest)
        self.num_tokens = 0
