# exercise: 04.1
# says: of two blocks that were freed with keep=True
"""A shared block stays in the queue and is skipped later, but its old place counts once it is free again."""

from collections import deque


class Allocator:
    def __init__(self, num_blocks):
        self.counts = [0] * num_blocks
        self.queue = deque(range(num_blocks))

    @property
    def num_free(self):
        return self.counts.count(0)

    def holders(self, block):
        return self.counts[block]

    def allocate(self):
        while self.queue:
            block = self.queue.popleft()
            if self.counts[block] == 0:
                self.counts[block] = 1
                return block
        return None

    def share(self, block):
        self.counts[block] += 1

    def free(self, block, keep=False):
        if self.counts[block] == 0:
            raise ValueError(f"block {block} is free already")
        self.counts[block] -= 1
        if self.counts[block] == 0:
            if keep:
                self.queue.append(block)
            else:
                self.queue.appendleft(block)
