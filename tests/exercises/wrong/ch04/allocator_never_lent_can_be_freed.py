# exercise: 04.1
# says: must raise ValueError
"""Only a block that was freed before is known to be free."""

from collections import deque


class Allocator:
    def __init__(self, num_blocks):
        self.counts = [0] * num_blocks
        self.queue = deque(range(num_blocks))
        self.freed = set()

    @property
    def num_free(self):
        return len(self.queue)

    def holders(self, block):
        return self.counts[block]

    def allocate(self):
        if not self.queue:
            return None
        block = self.queue.popleft()
        self.counts[block] = 1
        self.freed.discard(block)
        return block

    def share(self, block):
        if self.counts[block] == 0:
            self.queue.remove(block)
        self.counts[block] += 1
        self.freed.discard(block)

    def free(self, block, keep=False):
        if block in self.freed:
            raise ValueError(f"block {block} is free already")
        self.counts[block] -= 1
        if self.counts[block] <= 0:
            self.freed.add(block)
        if self.counts[block] == 0:
            if keep:
                self.queue.append(block)
            else:
                self.queue.appendleft(block)
