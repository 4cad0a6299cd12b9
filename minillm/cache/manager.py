"""The manager: what the scheduler asks of the cache, in terms of requests. Plain Python, without torch.

Blocks are counted in blocks.py and found by their content in prefix.py. Here a request is admitted, grows, forks,
publishes what it has computed, and frees its blocks. `admit`, `grow` and `fork` either succeed, or change nothing and
return False, so the scheduler can try something else.

A contiguous cache has the same manager: one block per request, as long as the longest sequence, and no forks.
"""

from array import array
from collections.abc import Callable
from copy import deepcopy
from typing import Protocol

from minillm.cache.blocks import BlockAllocator
from minillm.cache.prefix import PrefixCache
from minillm.measure.trace import BlockCounts


class CachedSequence(Protocol):
    """A request as the manager sees it.

    The manager writes `block_table`, `block_hashes` and `num_published` (how many blocks others can find), and at
    admission `num_computed_tokens` and `num_cached_tokens` (what the prefix cache contributed).
    """

    token_ids: list[int]
    num_computed_tokens: int
    num_cached_tokens: int
    num_published: int
    block_table: "array[int]"
    block_hashes: list[bytes]

    @property
    def num_tokens(self) -> int: ...

    @property
    def num_wanted(self) -> int:
        """Tokens that need a place in the cache: `num_tokens` and the drafts after them."""
        ...

    @property
    def max_cached_tokens(self) -> int:
        """The most tokens that will ever need a place."""
        ...

    @property
    def may_hit(self) -> bool:
        """Whether blocks that other requests computed can be used. False if the logits of every position are wanted."""
        ...


class Allocator(Protocol):
    """Allocates blocks and counts references to them; see blocks.py."""

    @property
    def num_free(self) -> int: ...

    def holders(self, block: int) -> int: ...

    def allocate(self) -> int | None: ...

    def share(self, block: int) -> None: ...

    def free(self, block: int, keep: bool = False) -> None: ...


class KVCacheManager:
    """Gives the blocks of a cache to requests. `copies` lists the (from, to) blocks to copy before the next forward
    pass; the engine empties the list.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        prefix: PrefixCache | None = None,
        allocator: Callable[[int], Allocator] = BlockAllocator,
        can_fork: bool = True,
    ) -> None:
        self.num_blocks, self.block_size, self.can_fork = num_blocks, block_size, can_fork
        self._make_allocator, self._empty_prefix = allocator, prefix
        self.reset()

    def reset(self) -> None:
        """Forget every request and every prefix: all blocks are free again, whatever state an error left behind."""
        self.allocator, self.prefix = self._make_allocator(self.num_blocks), deepcopy(self._empty_prefix)
        self.num_cached = 0  # free blocks that still hold a known prefix
        self.copies: list[tuple[int, int]] = []

    @property
    def num_free(self) -> int:
        """Free blocks, including those that still hold a known prefix."""
        return self.allocator.num_free

    @property
    def capacity(self) -> int:
        """The most tokens that one request can hold."""
        return self.num_blocks * self.block_size

    def counts(self) -> BlockCounts | None:
        """The blocks as the trace records them; None for a cache that keeps nothing."""
        return BlockCounts(self.num_blocks, self.num_free, self.num_cached)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def may_grow(self, request: CachedSequence) -> bool:
        """Whether an admitted request can still need more blocks than it has."""
        return len(request.block_table) < self.blocks_for(request.max_cached_tokens)

    def admit(self, request: CachedSequence, headroom: int = 0) -> bool:
        """Give a request without blocks all that its tokens need, and set how many of them are computed already.

        Return False unless `headroom` blocks stay free for requests that may grow. At least one token is left to
        compute, because its logits are needed.
        """
        hits: list[int] = []
        if self.prefix is not None and request.may_hit:
            self.prefix.extend(request.block_hashes, request.token_ids)
            hits = self.prefix.match(request.block_hashes[: (request.num_tokens - 1) // self.block_size])
        # A hit on a free block takes it from those that could be given away.
        idle = sum(self.allocator.holders(block) == 0 for block in hits)
        needed = self.blocks_for(request.num_tokens) - len(hits)
        if needed + idle + headroom > self.num_free:
            return False
        self.num_cached -= idle
        for block in hits:  # before anything is allocated, so that no hit is given away
            self.allocator.share(block)
        request.block_table = array("i", hits)
        request.block_table.extend(self._allocate() for _ in range(needed))
        request.num_cached_tokens = request.num_computed_tokens = len(hits) * self.block_size
        request.num_published = len(hits)
        return True

    def grow(self, request: CachedSequence) -> bool:
        """Make room for all of a request's tokens and drafts, and give it its own copy of the block it writes next."""
        table, size = request.block_table, self.block_size
        next_block = request.num_computed_tokens // size
        shared = next_block < len(table) and self.allocator.holders(table[next_block]) > 1
        needed = -(-request.num_wanted // size) - len(table)
        if needed <= 0 and not shared:
            return True
        if needed + shared > self.num_free:
            return False
        if shared:  # copy on write
            original, table[next_block] = table[next_block], self._allocate()
            self.copies.append((original, table[next_block]))
            self.allocator.free(original)
        table.extend(self._allocate() for _ in range(needed))
        return True

    def fork(self, parent: CachedSequence, child: CachedSequence) -> bool:
        """Let `child` share all of `parent`'s blocks. Return False if no block is free for its first write."""
        if not self.can_fork or self.num_free == 0:
            return False
        for block in parent.block_table:
            self.allocator.share(block)
        child.block_table = parent.block_table[:]
        child.num_computed_tokens, child.num_cached_tokens = parent.num_computed_tokens, 0
        child.block_hashes, child.num_published = parent.block_hashes[:], parent.num_published
        return True

    def publish(self, request: CachedSequence) -> list[int]:
        """Let others find the blocks that are full of computed tokens; return those whose content was not known yet.

        `num_computed_tokens` must count verified tokens only: a rejected draft's keys and values are not the prefix's.
        """
        first, last = request.num_published, request.num_computed_tokens // self.block_size
        if self.prefix is None or first >= last:
            return []
        self.prefix.extend(request.block_hashes, request.token_ids)
        request.num_published = last
        full = zip(request.block_table[first:last], request.block_hashes[first:last], strict=True)
        return [block for block, name in full if self.prefix.publish(block, name)]

    def free(self, request: CachedSequence) -> None:
        """Take a request's blocks back, the last one first, so that a long prefix is evicted from its end."""
        for block in reversed(request.block_table):
            known = self.prefix is not None and block in self.prefix
            self.allocator.free(block, keep=known)
            self.num_cached += known and self.allocator.holders(block) == 0
        request.block_table = array("i")

    def _allocate(self) -> int:
        block = self.allocator.allocate()
        if block is None:
            raise RuntimeError(f"the allocator has {self.num_free} free blocks, and gives none")
        if self.prefix is not None and block in self.prefix:
            self.prefix.forget(block)
            self.num_cached -= 1
        return block


class NoCacheManager(KVCacheManager):
    """The manager of a cache that keeps nothing: a block is the right to run, for `num_blocks` requests at a time."""

    def __init__(self, num_blocks: int, max_model_len: int) -> None:
        super().__init__(num_blocks, max_model_len, can_fork=False)

    def counts(self) -> None:
        return None

    def publish(self, request: CachedSequence) -> list[int]:
        """Nothing was kept, so the next step computes every token again."""
        request.num_computed_tokens = 0
        return []
