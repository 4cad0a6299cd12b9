# exercise: 09.3
# says: is in use
"""A hit makes the block the most recently used one, as in any LRU cache, and leaves it in the queue."""

from collections import OrderedDict


class FreeQueue:
    def __init__(self, num_blocks):
        self.queue = OrderedDict.fromkeys(range(num_blocks))

    def take(self):
        return self.queue.popitem(last=False)[0]

    def revive(self, block):
        self.queue.move_to_end(block)

    def give_back(self, block_table, known):
        for block in reversed(block_table):
            self.queue[block] = None
            self.queue.move_to_end(block, last=block in known)
