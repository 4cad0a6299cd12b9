# exercise: 04.1
"""Blocks to lose and blocks to keep apart; the first are given first."""

from collections import deque


class Allocator:
    def __init__(self, num_blocks):
        self.counts = [0] * num_blocks
        self.lost, self.kept = list(range(num_blocks - 1, -1, -1)), deque()

    @property
    def num_free(self):
        return len(self.lost) + len(self.kept)

    def holders(self, block):
        return self.counts[block]

    def allocate(self):
        if not self.num_free:
            return None
        block = self.lost.pop() if self.lost else self.kept.popleft()
        self.counts[block] = 1
        return block

    def share(self, block):
        if self.counts[block] == 0:
            (self.lost if block in self.lost else self.kept).remove(block)
        self.counts[block] += 1

    def free(self, block, keep=False):
        if self.counts[block] == 0:
            raise ValueError(f"block {block} is free already")
        self.counts[block] -= 1
        if self.counts[block] == 0:
            if keep:
                self.kept.append(block)
            else:
                self.lost.append(block)
