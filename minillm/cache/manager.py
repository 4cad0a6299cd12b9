"""The manager: the cache's interface to the scheduler, in terms of requests. Plain Python, without torch.

The allocator (blocks.py) counts references to blocks, and the prefix cache (prefix.py) finds blocks by their content.
The manager admits, grows and forks requests, publishes their computed blocks, and frees them. `admit`, `grow` and
`fork` either succeed, or change nothing and return False. The scheduler can then try something else.

A contiguous cache uses the same manager, with one block of `max_model_len` tokens per request and no forks.
"""

from array import array
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Protocol

from minillm.cache.blocks import BlockAllocator
from minillm.cache.prefix import PrefixCache
from minillm.measure.trace import BlockCounts


class CachedSequence(Protocol):
    """A request as the manager sees it.

    The manager writes `block_table`, `block_hashes` and `num_published` (the number of its blocks that others can
    find). At admission it also writes `num_cached_tokens` (the tokens that the prefix cache contributed),
    `num_computed_tokens`, and `num_drafted_tokens` (the tokens with keys and values of a draft model).
    """

    token_ids: list[int]
    num_computed_tokens: int
    num_cached_tokens: int
    num_published: int
    num_drafted_tokens: int
    block_table: "array[int]"
    block_hashes: list[bytes]

    @property
    def num_tokens(self) -> int: ...

    @property
    def num_wanted(self) -> int:
        """Return the number of tokens that need a place in the cache: `num_tokens` and the drafts after them."""
        ...

    @property
    def max_cached_tokens(self) -> int:
        """Return the largest number of tokens that will ever need a place."""
        ...

    @property
    def may_hit(self) -> bool:
        """Return whether the request can use cached blocks. False if it needs the logits of every position."""
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
    """Gives the blocks of a cache to requests.

    `copies` lists the pairs (from, to) of blocks to copy before the next forward pass. The engine empties the list.

    If a draft model shares the blocks (`with_draft`), a block is published once both models have computed it. A draft
    model that need not run in every step catches up later (`draft_catches_up`). Then a block is published once the
    model has computed it, and `undrafted` has the blocks that the draft model has not.

    The keys and values of an EAGLE head at position p depend on token p + 1 too (`needs_next_token`). Then the name of
    a block includes the token after it, so that a hit needs this token. And a fork gets a copy of its last block at
    once: each sample computes its last position again with its own next token.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        prefix: PrefixCache | None = None,
        allocator: Callable[[int], Allocator] = BlockAllocator,
        can_fork: bool = True,
        with_draft: bool = False,
        needs_next_token: bool = False,
        draft_catches_up: bool = False,
    ) -> None:
        self.with_draft, self.needs_next_token = with_draft, needs_next_token
        self.draft_catches_up = draft_catches_up
        self.num_blocks, self.block_size, self.can_fork = num_blocks, block_size, can_fork
        self._make_allocator, self._empty_prefix = allocator, prefix
        self.reset()

    def reset(self) -> None:
        """Free all blocks and forget every request and every prefix, even if an error left the state inconsistent."""
        self.allocator, self.prefix = self._make_allocator(self.num_blocks), deepcopy(self._empty_prefix)
        self.num_cached = 0  # free blocks that still hold a known prefix
        self.copies: list[tuple[int, int]] = []
        self.undrafted: set[int] = set()

    @property
    def num_free(self) -> int:
        """Return the number of free blocks, including those that still hold a known prefix."""
        return self.allocator.num_free

    @property
    def capacity(self) -> int:
        """Return the largest number of tokens that one request can hold."""
        return self.num_blocks * self.block_size

    def counts(self) -> BlockCounts | None:
        """Return the numbers of blocks as the trace records them; None for a cache that keeps nothing."""
        return BlockCounts(self.num_blocks, self.num_free, self.num_cached)

    def known(self) -> list[int]:
        """Return the blocks whose prefix requests can find."""
        return [] if self.prefix is None else list(self.prefix)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def may_grow(self, request: CachedSequence) -> bool:
        """Return whether an admitted request can still need more blocks than it has."""
        return len(request.block_table) < self.blocks_for(request.max_cached_tokens)

    def admit(self, request: CachedSequence, headroom: int = 0) -> bool:
        """Give a new request the blocks that its tokens need, and set how many of its tokens are already computed.

        Return False if fewer than `headroom` blocks would stay free for requests that may grow. At least one token is
        left to compute, because its logits are needed.
        """
        hits: list[int] = []
        if self.prefix is not None and request.may_hit:
            self._name_blocks(self.prefix, request)
            hits = self.prefix.match(request.block_hashes[: (request.num_tokens - 1) // self.block_size])
        # A hit on a free block removes it from the free list.
        idle = sum(self.allocator.holders(block) == 0 for block in hits)
        needed = self.blocks_for(request.num_tokens) - len(hits)
        if needed + idle + headroom > self.num_free:
            return False
        self.num_cached -= idle
        for block in hits:  # before any allocation, which could evict a hit
            self.allocator.share(block)
        request.block_table = array("i", hits)
        request.block_table.extend(self._allocate() for _ in range(needed))
        request.num_cached_tokens = request.num_computed_tokens = len(hits) * self.block_size
        drafted = next((i for i, block in enumerate(hits) if block in self.undrafted), len(hits))
        request.num_drafted_tokens = drafted * self.block_size
        request.num_published = len(hits)
        return True

    def grow(self, request: CachedSequence) -> bool:
        """Add the blocks that a request's tokens and drafts need, and make sure that it alone holds its next block.

        If the block that it writes next is shared, the request gets a copy of it.
        """
        table, size = request.block_table, self.block_size
        next_block = request.num_computed_tokens // size
        shared = next_block < len(table) and self.allocator.holders(table[next_block]) > 1
        needed = -(-request.num_wanted // size) - len(table)
        if needed <= 0 and not shared:
            return True
        if needed + shared > self.num_free:
            return False
        if shared:
            self._copy_on_write(table, next_block)
        table.extend(self._allocate() for _ in range(needed))
        return True

    def fork(self, parent: CachedSequence, child: CachedSequence) -> bool:
        """Let `child` share all of `parent`'s blocks. Return False if no block is free for the child's first write."""
        if not self.can_fork or self.num_free == 0:
            return False
        for block in parent.block_table:
            self.allocator.share(block)
        child.block_table = parent.block_table[:]
        child.num_computed_tokens, child.num_cached_tokens = parent.num_computed_tokens, 0
        child.block_hashes, child.num_published = parent.block_hashes[:], parent.num_published
        child.num_drafted_tokens = parent.num_drafted_tokens
        if self.needs_next_token:
            self._copy_on_write(child.block_table, (child.num_computed_tokens - 1) // self.block_size)
        return True

    def can_publish(self, request: CachedSequence) -> bool:
        """Return whether the request has full blocks that it has not published yet."""
        return (
            self.prefix is not None and request.num_published < request.num_computed_tokens // self.block_size
        )

    def publish(self, request: CachedSequence) -> list[int]:
        """Publish the blocks that are full of computed tokens, so that other requests find them. Return the new ones.

        A block is new if its content was not known under this name. `num_computed_tokens` must count verified tokens
        only, because the keys and values of a rejected draft are not part of the prefix.
        """
        done = request.num_computed_tokens
        if self.draft_catches_up:
            self._note_undrafted(request)
        elif self.with_draft:
            done = min(done, request.num_drafted_tokens)
        first, last = request.num_published, done // self.block_size
        if self.prefix is None or first >= last:
            return []
        self._name_blocks(self.prefix, request)
        request.num_published = last
        full = zip(request.block_table[first:last], request.block_hashes[first:last], strict=True)
        return [block for block, name in full if self.prefix.publish(block, name)]

    def _note_undrafted(self, request: CachedSequence) -> None:
        """Update `undrafted` by the full blocks of a request."""
        full = request.num_computed_tokens // self.block_size
        drafted = min(full, request.num_drafted_tokens // self.block_size)
        if self.undrafted:
            self.undrafted.difference_update(request.block_table[:drafted])
        self.undrafted.update(request.block_table[max(drafted, request.num_published) : full])

    def free(self, request: CachedSequence) -> None:
        """Free a request's blocks, the last one first, so that a long prefix is evicted from its end."""
        for block in reversed(request.block_table):
            known = self.prefix is not None and block in self.prefix
            self.allocator.free(block, keep=known)
            self.num_cached += known and self.allocator.holders(block) == 0
        request.block_table = array("i")

    def count_cached_tokens(self, token_ids: Sequence[int]) -> int:
        """Return how many of a prompt's first tokens the prefix cache has now. Any thread may call this."""
        if self.prefix is None:
            return 0
        hashes: list[bytes] = []
        self.prefix.extend(hashes, self._named_ids(token_ids))
        return self.prefix.count_known(hashes) * self.block_size

    def _name_blocks(self, prefix: PrefixCache, request: CachedSequence) -> None:
        """Name the request's full blocks."""
        prefix.extend(request.block_hashes, self._named_ids(request.token_ids))

    def _named_ids(self, token_ids: Sequence[int]) -> Sequence[int]:
        """Return the integers that name blocks: the tokens, or their pairs of a token and the next one."""
        if self.needs_next_token:
            return [token_id | after << 32 for token_id, after in pairwise(token_ids)]
        return token_ids

    def _copy_on_write(self, table: "array[int]", index: int) -> None:
        """Replace a shared block of a table by a copy."""
        original, table[index] = table[index], self._allocate()
        self.copies.append((original, table[index]))
        self.allocator.free(original)

    def _allocate(self) -> int:
        block = self.allocator.allocate()
        if block is None:
            raise RuntimeError(f"the allocator has {self.num_free} free blocks, but allocate() returned None")
        self.undrafted.discard(block)
        if self.prefix is not None and block in self.prefix:
            self.prefix.forget(block)
            self.num_cached -= 1
        return block


class NoCacheManager(KVCacheManager):
    """The manager of a cache that keeps nothing. A block stands for the right to run, and one request needs one."""

    def __init__(self, num_blocks: int, max_model_len: int) -> None:
        super().__init__(num_blocks, max_model_len, can_fork=False)

    def counts(self) -> None:
        return None

    def publish(self, request: CachedSequence) -> list[int]:
        """Reset `num_computed_tokens` to 0: nothing was kept, so the next step computes every token again."""
        request.num_computed_tokens = 0
        return []
