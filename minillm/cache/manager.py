"""The manager: what the scheduler asks of the cache, in terms of requests. Plain Python, without torch.

Blocks are counted in blocks.py and known by their content in prefix.py; here a request is admitted, grows by a token,
forks, and lets go. Each of these either succeeds or changes nothing, so the scheduler can try and do something else.

A contiguous cache is managed by the same code: one block a request, as long as the longest text.
"""

from array import array
from collections.abc import Callable
from typing import Protocol

from minillm.cache.blocks import BlockAllocator
from minillm.cache.prefix import PrefixCache


class CachedSequence(Protocol):
    """What the manager sees of a request. It writes `block_table`, `block_hashes`, and at admission the numbers of
    tokens that are computed and of those the ones that the prefix cache contributed."""

    token_ids: list[int]
    num_computed_tokens: int
    num_cached_tokens: int
    block_table: "array[int]"
    block_hashes: list[bytes]

    @property
    def num_tokens(self) -> int: ...

    @property
    def may_hit(self) -> bool:
        """Whether computed blocks of other requests will do; not where every position is wanted for itself."""
        ...


class Allocator(Protocol):
    """Lends blocks and counts their holders; blocks.py says how ours does."""

    @property
    def num_free(self) -> int: ...

    def holders(self, block: int) -> int: ...

    def allocate(self) -> int | None: ...

    def share(self, block: int) -> None: ...

    def free(self, block: int, keep: bool = False) -> None: ...


class KVCacheManager:
    """Lends the blocks of a cache to requests. `copies` are the (from, to) blocks that must be copied before the next
    forward pass; whoever runs it empties the list.

    `one_block_each`: a block is as long as the longest text, so that a request has one, never grows and does not fork.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        prefix: PrefixCache | None = None,
        allocator: Callable[[int], Allocator] = BlockAllocator,
        one_block_each: bool = False,
    ) -> None:
        self.num_blocks, self.block_size, self.prefix = num_blocks, block_size, prefix
        self.allocator, self.can_fork = allocator(num_blocks), not one_block_each
        self._one_block_each = one_block_each
        self.num_cached = 0  # free blocks that still hold a known prefix
        self.copies: list[tuple[int, int]] = []

    @property
    def num_free(self) -> int:
        """Free blocks, those included that still hold a known prefix."""
        return self.allocator.num_free

    @property
    def capacity(self) -> int:
        """The most tokens that one request can hold."""
        return self.num_blocks * self.block_size

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def admit(self, request: CachedSequence, headroom: int = 0) -> bool:
        """Give a request without blocks all that its tokens need, and set what of them is computed already.

        Refuses unless `headroom` blocks stay free for those that may grow. At least one token is left to compute: its
        logits are wanted.
        """
        hits: list[int] = []
        if self.prefix is not None and request.may_hit:
            self.prefix.extend(request.block_hashes, request.token_ids)
            hits = self.prefix.match(request.block_hashes[: (request.num_tokens - 1) // self.block_size])
        # A hit on a free block takes it from those that could be given away.
        idle = sum(self.allocator.holders(block) == 0 for block in hits)
        needed = self.blocks_for(request.num_tokens) - len(hits)
        if needed + idle + headroom * (not self._one_block_each) > self.num_free:
            return False
        self.num_cached -= idle
        for block in hits:  # before anything is allocated, so that no hit is given away
            self.allocator.share(block)
        request.block_table = array("i", hits)
        request.block_table.extend(self._allocate() for _ in range(needed))
        request.num_cached_tokens = request.num_computed_tokens = len(hits) * self.block_size
        return True

    def grow(self, request: CachedSequence) -> bool:
        """Make room for all of a request's tokens, and see that the block it writes next is its own."""
        table, next_block = request.block_table, request.num_computed_tokens // self.block_size
        shared = next_block < len(table) and self.allocator.holders(table[next_block]) > 1
        needed = self.blocks_for(request.num_tokens) - len(table)
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
        """Let `child` share all of `parent`'s blocks. Refuses where not even the first block it writes could be had."""
        if not self.can_fork or self.num_free == 0:
            return False
        for block in parent.block_table:
            self.allocator.share(block)
        child.block_table = parent.block_table[:]
        child.num_computed_tokens, child.num_cached_tokens = parent.num_computed_tokens, 0
        child.block_hashes = parent.block_hashes[:]
        return True

    def publish(self, request: CachedSequence, before: int) -> list[int]:
        """Let others find the blocks that a forward pass has filled; `before` it, that many tokens were computed.

        Returns those blocks whose content was not known yet.
        """
        first, last = before // self.block_size, request.num_computed_tokens // self.block_size
        if self.prefix is None or first == last:
            return []
        self.prefix.extend(request.block_hashes, request.token_ids)
        filled = zip(request.block_table[first:last], request.block_hashes[first:last], strict=True)
        return [block for block, name in filled if self.prefix.publish(block, name)]

    def free(self, request: CachedSequence) -> None:
        """Take a request's blocks back, its last one first: a long prefix is lost from its end."""
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
