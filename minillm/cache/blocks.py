"""The allocator: it divides the KV cache into blocks of a few tokens and counts the references to each block.

A request's block table lists the blocks that hold its tokens, in order. The blocks may be anywhere in the cache. So no
memory is reserved for tokens that may never come, and requests of different lengths leave no gaps. Requests with the
same first tokens may share the blocks of those tokens. Each block has a reference count, the number of requests that
hold it, and it becomes free when the count drops to 0.

Free blocks form a queue, the free list, and `allocate` takes the block at its front. A freed block normally goes to
the front, because no request needs its content. A block with `keep=True` goes to the back, because a later request may
ask for its content (prefix.py). Of the kept blocks, the least recently used one is therefore evicted first. The time
of every operation is independent of the number of blocks.

Source: Kwon et al. 2023, "Efficient Memory Management for LLM Serving with PagedAttention" (arXiv 2309.06180), 4.2-4.4.
"""

from collections import OrderedDict


class BlockAllocator:
    """`num_blocks` blocks, numbered from 0. Each is either free or held by one or more requests."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._holders = [0] * num_blocks
        self._free = OrderedDict.fromkeys(range(num_blocks))  # a queue from whose middle a block can be taken

    @property
    def num_free(self) -> int:
        return len(self._free)

    def holders(self, block: int) -> int:
        """Return the reference count of the block: 0 if it is free."""
        return self._holders[block]

    def allocate(self) -> int | None:
        """Take the block at the front of the free list and return it, with a count of 1; None if no block is free."""
        if not self._free:
            return None
        block, _ = self._free.popitem(last=False)
        self._holders[block] = 1
        return block

    def share(self, block: int) -> None:
        """Add one to the block's reference count. If the block is free, take it out of the free list."""
        if self._holders[block] == 0:
            del self._free[block]
        self._holders[block] += 1

    def free(self, block: int, keep: bool = False) -> None:
        """Subtract one from the block's reference count. At 0 the block joins the free list, at the back if `keep`.

        Raises `ValueError` if the block is already free.
        """
        if self._holders[block] == 0:
            raise ValueError(f"block {block} is freed twice: its reference count is already 0")
        self._holders[block] -= 1
        if self._holders[block] == 0:
            self._free[block] = None
            self._free.move_to_end(block, last=keep)
