# exercise: 04.1
"""Free blocks in a heap, by the number at which they are to be given away; stale entries are skipped."""

import heapq


class Allocator:
    def __init__(self, num_blocks):
        self.count = [0] * num_blocks
        self.rank = list(range(num_blocks))
        self.heap = [(i, i) for i in range(num_blocks)]
        self.first, self.last = -1, num_blocks
        self.free_now = num_blocks

    @property
    def num_free(self):
        return self.free_now

    def holders(self, block):
        return self.count[block]

    def allocate(self):
        while self.heap:
            rank, block = heapq.heappop(self.heap)
            if self.count[block] == 0 and self.rank[block] == rank:
                self.count[block] = 1
                self.free_now -= 1
                return block
        return None

    def share(self, block):
        self.free_now -= self.count[block] == 0
        self.count[block] += 1

    def free(self, block, keep=False):
        if not self.count[block]:
            raise ValueError("freed twice")
        self.count[block] -= 1
        if self.count[block]:
            return
        self.free_now += 1
        if keep:
            self.rank[block], self.last = self.last, self.last + 1
        else:
            self.rank[block], self.first = self.first, self.first - 1
        heapq.heappush(self.heap, (self.rank[block], block))
