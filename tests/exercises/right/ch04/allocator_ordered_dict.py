# exercise: 04.1
"""The queue is an OrderedDict."""

from collections import OrderedDict


class Allocator:
    def __init__(self, num_blocks):
        self.counts = [0] * num_blocks
        self.queue = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_free(self):
        return len(self.queue)

    def holders(self, block):
        return self.counts[block]

    def allocate(self):
        if not self.queue:
            return None
        block = self.queue.popitem(last=False)[0]
        self.counts[block] = 1
        return block

    def share(self, block):
        if self.counts[block] == 0:
            del self.queue[block]
        self.counts[block] += 1

    def free(self, block, keep=False):
        if self.counts[block] == 0:
            raise ValueError(f"block {block} is free already")
        self.counts[block] -= 1
        if self.counts[block] == 0:
            self.queue[block] = None
            self.queue.move_to_end(block, last=keep)
