# exercise: 09.3
"""Two queues, and the one with nothing to lose is emptied first."""


class FreeQueue:
    def __init__(self, num_blocks):
        self.empty, self.kept = list(range(num_blocks)), []

    def take(self):
        return (self.empty or self.kept).pop(0)

    def revive(self, block):
        (self.empty if block in self.empty else self.kept).remove(block)

    def give_back(self, block_table, known):
        self.empty = [block for block in block_table if block not in known] + self.empty
        self.kept += [block for block in block_table[::-1] if block in known]
