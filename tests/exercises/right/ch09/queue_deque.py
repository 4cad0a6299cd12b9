# exercise: 09.3
"""A deque."""

from collections import deque


class FreeQueue:
    def __init__(self, num_blocks):
        self.queue = deque(range(num_blocks))

    def take(self):
        return self.queue.popleft()

    def revive(self, block):
        self.queue.remove(block)

    def give_back(self, block_table, known):
        for block in reversed(block_table):
            (self.queue.append if block in known else self.queue.appendleft)(block)
