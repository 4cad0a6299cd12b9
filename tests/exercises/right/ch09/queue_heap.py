# exercise: 09.3
"""A heap with valid stamps."""

import heapq


class FreeQueue:
    def __init__(self, num_blocks):
        self.stamp = {b: b for b in range(num_blocks)}
        self.heap = [(b, b) for b in range(num_blocks)]
        self.low, self.high = 0, num_blocks

    def take(self):
        while True:
            stamp, block = heapq.heappop(self.heap)
            if self.stamp.get(block) == stamp:
                del self.stamp[block]
                return block

    def revive(self, block):
        del self.stamp[block]

    def give_back(self, block_table, known):
        for block in reversed(block_table):
            if block in known:
                self.high += 1
                self.stamp[block] = self.high
            else:
                self.low -= 1
                self.stamp[block] = self.low
            heapq.heappush(self.heap, (self.stamp[block], block))
