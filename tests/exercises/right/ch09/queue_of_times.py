# exercise: 09.3
"""A clock instead of an order: the least of (known, time, depth) goes next."""


class FreeQueue:
    def __init__(self, num_blocks):
        self.rank = {block: (False, 0, block) for block in range(num_blocks)}
        self.clock = 0

    def take(self):
        block = min(self.rank, key=self.rank.__getitem__)
        del self.rank[block]
        return block

    def revive(self, block):
        self.rank.pop(block)

    def give_back(self, block_table, known):
        self.clock += 1
        for depth, block in enumerate(block_table):
            useful = block in known
            self.rank[block] = (useful, self.clock if useful else -self.clock, -depth)
