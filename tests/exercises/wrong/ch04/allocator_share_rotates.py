# exercise: 04.1
# says: goes to the front
"""To find the block the queue is turned, and stays turned."""

from collections import deque


class Allocator:
    def __init__(self, num_blocks):
        self.counts = [0] * num_blocks
        self.queue = deque(range(num_blocks))

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
            while self.queue[0] != block:
                self.queue.rotate(-1)
            self.queue.popleft()
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
