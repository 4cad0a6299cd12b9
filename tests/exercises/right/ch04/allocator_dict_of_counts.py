# exercise: 04.1
"""Only held blocks have a count; a dict is the queue, rebuilt where one goes to its front."""


class Allocator:
    def __init__(self, num_blocks):
        self.held = {}
        self.queue = dict.fromkeys(range(num_blocks))

    @property
    def num_free(self):
        return len(self.queue)

    def holders(self, block):
        return self.held.get(block, 0)

    def allocate(self):
        block = next(iter(self.queue), None)
        if block is not None:
            del self.queue[block]
            self.held[block] = 1
        return block

    def share(self, block):
        self.queue.pop(block, None)
        self.held[block] = self.held.get(block, 0) + 1

    def free(self, block, keep=False):
        if block not in self.held:
            raise ValueError(block)
        self.held[block] -= 1
        if self.held[block] == 0:
            del self.held[block]
            self.queue = {**self.queue, block: None} if keep else {block: None, **self.queue}
