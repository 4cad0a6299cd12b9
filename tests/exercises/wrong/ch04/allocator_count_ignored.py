# exercise: 04.1
# says: becomes free after its last holder frees it
"""Whoever frees a block frees it for all."""


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
        block = self.queue.pop(0)
        self.counts[block] = 1
        return block

    def share(self, block):
        if self.counts[block] == 0:
            self.queue.remove(block)
        self.counts[block] += 1

    def free(self, block, keep=False):
        if self.counts[block] == 0:
            raise ValueError(f"block {block} is free already")
        self.counts[block] = 0
        self.queue.insert(len(self.queue) if keep else 0, block)
