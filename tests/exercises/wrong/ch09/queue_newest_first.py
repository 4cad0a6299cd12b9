# exercise: 09.3
# says: the most recently used
"""A stack: what came last goes first."""


class FreeQueue:
    def __init__(self, num_blocks):
        self.empty, self.kept = list(range(num_blocks)), []

    def take(self):
        return self.empty.pop(0) if self.empty else self.kept.pop()

    def revive(self, block):
        (self.empty if block in self.empty else self.kept).remove(block)

    def give_back(self, block_table, known):
        for block in block_table:
            if block in known:
                self.kept.append(block)
            else:
                self.empty.insert(0, block)
