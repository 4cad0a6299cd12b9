"""The allocator: the KV cache cut into blocks of a few tokens, lent out and counted like pages of memory.

A request's block table lists the blocks that hold its tokens, in order; the blocks themselves lie anywhere. So no
memory is reserved for tokens that may never come, nothing is lost between requests of unlike length, and two requests
that share their first tokens may share the blocks of them: a block is free when its last holder has let go of it.

Free blocks form one queue, and the front of it is given away next. A freed block goes to the front, because no request
wants what is in it; unless it is to be kept, as its content may be asked for again (prefix.py): then it goes to the
back, and of all that is kept the least recently used is lost first. Every operation takes the same time, however many
blocks there are.

Source: Kwon et al. 2023, "Efficient Memory Management for LLM Serving with PagedAttention" (arXiv 2309.06180), 4.2-4.4.
"""

from collections import OrderedDict


class BlockAllocator:
    """`num_blocks` blocks, numbered from 0, each free or held by one or more."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._holders = [0] * num_blocks
        self._free = OrderedDict.fromkeys(range(num_blocks))  # a queue from whose middle a block can be taken

    @property
    def num_free(self) -> int:
        return len(self._free)

    def holders(self, block: int) -> int:
        """How many hold the block; 0 if it is free."""
        return self._holders[block]

    def allocate(self) -> int | None:
        """A free block, now held by one; None when there is none."""
        if not self._free:
            return None
        block, _ = self._free.popitem(last=False)
        self._holders[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more holder. A free block that still holds what is wanted is taken out of the queue."""
        if self._holders[block] == 0:
            del self._free[block]
        self._holders[block] += 1

    def free(self, block: int, keep: bool = False) -> None:
        """One holder less; after the last, the block is free. `keep`: let its content live as long as possible.

        Raises `ValueError` for a block that is free already.
        """
        if self._holders[block] == 0:
            raise ValueError(f"block {block} is freed twice: it is free already")
        self._holders[block] -= 1
        if self._holders[block] == 0:
            self._free[block] = None
            self._free.move_to_end(block, last=keep)
