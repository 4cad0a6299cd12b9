# exercise: 09.3
# says: 4 was used longer ago
"""All of `known`, whether in the table or not."""

from collections import OrderedDict


class FreeQueue:
    def __init__(self, num_blocks):
        self.queue = OrderedDict.fromkeys(range(num_blocks))

    def take(self):
        return self.queue.popitem(last=False)[0]

    def revive(self, block):
        del self.queue[block]

    def give_back(self, block_table, known):
        for block in [b for b in known if b not in block_table] + list(reversed(block_table)):
            self.queue[block] = None
            self.queue.move_to_end(block, last=block in known)
