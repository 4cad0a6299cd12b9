# exercise: 09.3
# says: by their numbers
"""A heap of block numbers, the known ones behind the others."""

import heapq


class FreeQueue:
    def __init__(self, num_blocks):
        self.heap = [(False, block) for block in range(num_blocks)]

    def take(self):
        return heapq.heappop(self.heap)[1]

    def revive(self, block):
        self.heap = [entry for entry in self.heap if entry[1] != block]
        heapq.heapify(self.heap)

    def give_back(self, block_table, known):
        for block in block_table:
            heapq.heappush(self.heap, (block in known, block))
