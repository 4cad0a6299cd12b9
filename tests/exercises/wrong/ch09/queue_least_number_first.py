# exercise: 09.3
# says: what no request can find
"""Of those that are not known, the least number."""

from collections import OrderedDict


class FreeQueue:
    def __init__(self, num_blocks):
        self.queue = OrderedDict.fromkeys(range(num_blocks))
        self.known, self.touched = set(), False

    def take(self):
        block = next(iter(self.queue))
        if not self.known & set(self.queue) and self.touched:
            block = min(self.queue)
        del self.queue[block]
        return block

    def revive(self, block):
        del self.queue[block]

    def give_back(self, block_table, known):
        self.known, self.touched = self.known | known, True
        for block in reversed(block_table):
            self.queue[block] = None
            self.queue.move_to_end(block, last=block in known)
