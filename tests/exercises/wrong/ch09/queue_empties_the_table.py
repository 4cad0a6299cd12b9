# exercise: 09.3
# says: changes `block_table`
"""The table is emptied."""

from collections import OrderedDict


class FreeQueue:
    def __init__(self, num_blocks):
        self.queue = OrderedDict.fromkeys(range(num_blocks))

    def take(self):
        return self.queue.popitem(last=False)[0]

    def revive(self, block):
        del self.queue[block]

    def give_back(self, block_table, known):
        while block_table:
            block = block_table.pop()
            self.queue[block] = None
            self.queue.move_to_end(block, last=block in known)
