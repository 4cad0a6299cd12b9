# exercise: 04.1
# says: was freed last goes out first
"""A wish to keep is remembered until the block is free, though the last holder did not ask."""

from collections import deque


class Allocator:
    def __init__(self, num_blocks):
        self.counts = [0] * num_blocks
        self.queue = deque(range(num_blocks))
        self.kept = set()

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
        return block

    def share(self, block):
        if self.counts[block] == 0:
            self.queue.remove(block)
        self.counts[block] += 1

    def free(self, block, keep=False):
        if self.counts[block] == 0:
            raise ValueError(f"block {block} is free already")
        self.counts[block] -= 1
        if keep:
            self.kept.add(block)
        if self.counts[block] == 0:
            if block in self.kept:
                self.kept.remove(block)
                self.queue.append(block)
            else:
                self.queue.appendleft(block)
