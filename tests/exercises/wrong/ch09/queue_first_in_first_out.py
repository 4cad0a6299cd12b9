# exercise: 09.3
# says: when a block was used last
"""A block keeps the place of its first use: the oldest content goes first, however often it was hit since."""


class FreeQueue:
    def __init__(self, num_blocks):
        self.free = dict.fromkeys(range(num_blocks), False)
        self.born, self.clock = dict.fromkeys(range(num_blocks), 0), 0

    def take(self):
        block = min(self.free, key=lambda b: (self.free[b], self.born[b]))
        self.born[block] = 0  # new content
        del self.free[block]
        return block

    def revive(self, block):
        del self.free[block]

    def give_back(self, block_table, known):
        for block in reversed(block_table):
            self.clock += 1
            self.free[block] = block in known
            self.born[block] = (self.born[block] or self.clock) if block in known else -self.clock
