# exercise: 09.3
# says: what no request can find
"""The queue is a default argument."""

from collections import OrderedDict


class FreeQueue:
    def __init__(self, num_blocks, queue=OrderedDict()):
        queue.clear()
        queue.update(dict.fromkeys(range(num_blocks)))
        self.queue = queue

    def take(self):
        return self.queue.popitem(last=False)[0]

    def revive(self, block):
        del self.queue[block]

    def give_back(self, block_table, known):
        for block in reversed(block_table):
            self.queue[block] = None
            self.queue.move_to_end(block, last=block in known)
