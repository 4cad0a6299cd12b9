# exercise: 09.3
# says: the head of a text is given away before its tail
"""The table is taken as it comes."""

from collections import deque


class FreeQueue:
    def __init__(self, num_blocks):
        self.queue = deque(range(num_blocks))

    def take(self):
        return self.queue.popleft()

    def revive(self, block):
        self.queue.remove(block)

    def give_back(self, block_table, known):
        for block in block_table:
            if block in known:
                self.queue.append(block)
            else:
                self.queue.appendleft(block)
