# exercise: 09.3
"""A list."""

class FreeQueue:
    def __init__(self, num_blocks):
        self.queue = list(range(num_blocks))

    def take(self):
        return self.queue.pop(0)

    def revive(self, block):
        self.queue.remove(block)

    def give_back(self, block_table, known):
        gone = [b for b in block_table if b not in known]
        self.queue = gone + self.queue + [b for b in reversed(block_table) if b in known]
