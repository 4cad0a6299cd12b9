# exercise: 04.1
# says: of two blocks that were freed with keep=True
"""A block that was revived goes to the front even if it is kept again."""

from collections import deque


class Allocator:
    def __init__(self, num_blocks):
        self.counts = [0] * num_blocks
        self.queue = deque(range(num_blocks))
        self.revived = set()

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
            self.revived.add(block)
        self.counts[block] += 1

    def free(self, block, keep=False):
        if self.counts[block] == 0:
            raise ValueError(f"block {block} is free already")
        self.counts[block] -= 1
        if self.counts[block] == 0:
            if keep and block not in self.revived:
                self.queue.append(block)
            else:
                self.queue.appendleft(block)
