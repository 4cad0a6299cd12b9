# exercise: 09.3
# says: 4 was used longer ago
"""A heap of the times: one time for a whole table."""

import heapq


class FreeQueue:
    def __init__(self, num_blocks):
        self.queue = [(0, 0, b) for b in range(num_blocks)]
        self.now = 0

    def take(self):
        return heapq.heappop(self.queue)[-1]

    def revive(self, block):
        self.queue = [e for e in self.queue if e[-1] != block]
        heapq.heapify(self.queue)

    def give_back(self, block_table, known):
        self.now += 1
        for block in reversed(block_table):
            heapq.heappush(self.queue, (self.now, 1, block) if block in known else (-self.now, -1, block))
