# exercise: 04.1
# says: has one holder
"""allocate lends the block and counts only those who share it."""


class Allocator:
    def __init__(self, num_blocks):
        self.counts = [0] * num_blocks
        self.queue = list(range(num_blocks))

    @property
    def num_free(self):
        return len(self.queue)

    def holders(self, block):
        return self.counts[block]

    def allocate(self):
        if not self.queue:
            return None
        return self.queue.pop(0)

    def share(self, block):
        if block in self.queue:
            self.queue.remove(block)
        self.counts[block] += 1

    def free(self, block, keep=False):
        if block in self.queue:
            raise ValueError(f"block {block} is free already")
        if self.counts[block] > 0:
            self.counts[block] -= 1
        else:
            self.queue.insert(len(self.queue) if keep else 0, block)
