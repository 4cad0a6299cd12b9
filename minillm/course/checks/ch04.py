"""Chapter 04, paged attention: its exercises' checks."""

import random
from collections.abc import Callable
from operator import index
from typing import Any

import torch
from torch import Tensor

from minillm.cache.blocks import BlockAllocator
from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch04 import ALLOCATOR, PAGED_ATTENTION, SEQUENCE, SLOT_MAPPING
from minillm.ops import attend

# --- 04.1 Allocator ---

RULES = {  # the rule of each call for the holders of its block, and for num_free
    "allocate": (
        "an allocated block has one holder",
        "an allocated block that stays in the queue is lent twice",
    ),
    "share": ("share() adds a holder", "num_free counts blocks, not holders"),
    "revive": ("it was free", "a free block that is shared gets a holder, so it must leave the queue"),
    "free": ("a block becomes free after its last holder frees it",) * 2,
    "refuse": ("a free() that raises ValueError changes nothing",) * 2,
}


class Twin:
    """The learner's allocator and a simple correct model of it. Each call goes to both."""

    def __init__(self, make: Answer, num_blocks: int) -> None:
        self.theirs = make(num_blocks)
        self.holders, self.queue = [0] * num_blocks, list(range(num_blocks))
        self.place = dict.fromkeys(range(num_blocks), "new")  # how each block came to its place in the queue
        self.history = [f"Allocator({num_blocks})"]
        if callable(self.theirs.num_free):
            raise Wrong(
                "num_free is a method. It must be a property, so that it is read without brackets: write "
                "`@property` above it"
            )
        expect.equal(self.theirs.num_free, num_blocks, f"Allocator({num_blocks}).num_free")

    def allocate(self) -> int | None:
        """Call allocate() and return the block, or None if none is free."""
        self.history.append("allocate()")
        try:
            got = self.theirs.allocate()
        except (IndexError, KeyError, StopIteration) as error:
            raise Wrong(
                f"allocate() raises {type(error).__name__} when {len(self.queue)} blocks are free. If no "
                "block is free it returns None, so that the scheduler can make room"
            ) from None
        if not self.queue:
            expect.that(
                got is None, f"allocate() returns {got!r} when no block is free; it should return None"
            )
            return None
        if not hasattr(got, "__index__"):
            raise Wrong(
                f"allocate() returns {got!r} when {len(self.queue)} blocks are free; it should return the "
                "number of one"
            )
        block = index(got)
        self._check_front(block)
        self.queue.remove(block)
        self.holders[block] = 1
        self.compare("allocate")
        return block

    def share(self, block: int) -> None:
        was_free = block in self.queue
        self.history.append(f"share({block})")
        self.theirs.share(block)
        if was_free:
            self.queue.remove(block)
        self.holders[block] += 1
        self.compare("revive" if was_free else "share")

    def free(self, block: int, keep: bool = False) -> None:
        self.history.append(f"free({block}{', keep=True' * keep})")
        self.theirs.free(block, keep=keep) if keep else self.theirs.free(block)
        self.holders[block] -= 1
        if self.holders[block] == 0:
            self.queue.insert(len(self.queue) if keep else 0, block)
            self.place[block] = "back" if keep else "front"
        self.compare("free")

    def refuse(self, block: int) -> None:
        """Free a free block, which must raise ValueError."""
        self.history.append(f"free({block})")
        try:
            self.theirs.free(block)
        except ValueError:
            self.compare("refuse")
            return
        raise Wrong(
            "free() of a free block must raise ValueError. Without the error, two requests would later get "
            "the same block"
        )

    def compare(self, what: str) -> None:
        after = f"after {', '.join(self.history[-4:])}"
        for block, holders in enumerate(self.holders):
            got = self.theirs.holders(block)
            expect.that(
                got == holders, f"holders({block}) is {got} {after}; it should be {holders}: {RULES[what][0]}"
            )
        got, right = self.theirs.num_free, len(self.queue)
        expect.that(got == right, f"num_free is {got} {after}; it should be {right}: {RULES[what][1]}")

    def _check_front(self, got: int) -> None:
        """Raise Wrong if the block is not the first in the queue. New blocks may come in any order."""
        last = len(self.holders) - 1
        expect.that(
            0 <= got <= last, f"allocate() returns block {got}. The blocks are numbered from 0 to {last}"
        )
        if got not in self.queue:
            raise Wrong(
                f"block {got} is lent twice. allocate() must take the block out of the queue, and so must "
                "share() of a free block"
            )
        places = self.place[self.queue[0]], self.place[got]
        why = {
            ("front", "front"): "the block that was freed last goes out first",
            ("back", "back"): (
                "of two blocks that were freed with keep=True, the one that was freed first goes out first"
            ),
            ("new", "back"): "a block that is freed with keep=True goes to the back of the queue",
        }.get(
            places, "a freed block goes to the front of the queue, because no request will need its content"
        )
        if got != self.queue[0] and places != ("new", "new"):
            calls = ", ".join(self.history[-7:])
            raise Wrong(
                f"allocate() returns block {got}; it should return block {self.queue[0]}: {why} (the last "
                f"calls: {calls})"
            )


@ALLOCATOR.part("each block is lent once", points=1)
def allocator_lends(make: Answer) -> None:
    one, other = Twin(make, 5), Twin(make, 3)  # two allocators are independent
    for _ in range(6):
        one.allocate()
        other.allocate()


@ALLOCATOR.part("a block is free after its last holder", points=2)
def allocator_counts(make: Answer) -> None:
    twin = Twin(make, 4)
    twin.allocate()
    twin.allocate()
    twin.share(0)
    twin.share(0)
    for _ in range(3):
        twin.free(0)
    for block in (0, 3):  # freed before, and never lent
        twin.refuse(block)
    twin.share(0)
    twin.free(0)
    twin.free(1)


@ALLOCATOR.part("the queue of free blocks", points=2)
def allocator_queue(make: Answer) -> None:
    twin = Twin(make, 6)
    for _ in range(4):
        twin.allocate()
    twin.free(1)
    twin.allocate()
    twin.free(2, keep=True)
    twin.free(0)
    twin.allocate()
    for _ in range(3):
        twin.allocate()
    twin.free(3, keep=True)
    twin.share(3)
    twin.allocate()


@ALLOCATOR.part("1,200 random calls to two allocators", points=1)
def allocator_random(make: Answer) -> None:
    dice, twins = random.Random(0), [Twin(make, 4), Twin(make, 9)]
    for _ in range(1200):
        twin = dice.choice(twins)
        block, what = dice.randrange(len(twin.holders)), dice.random()
        if what < 0.3:
            twin.allocate()
        elif what < 0.5:
            twin.share(block)
        elif twin.holders[block]:
            twin.free(block, keep=dice.random() < 0.5)
        elif what < 0.55:
            twin.refuse(block)


# --- 04.2 slot_mapping ---


def slots_by(slot: Callable[[list[int], int, int, int], int]) -> Callable[..., Tensor]:
    """Return the mapping that puts position p of a request with c cached tokens into slot(table, p, c, block_size)."""

    def mapping(tables: list[list[int]], computed: list[int], new: list[int], size: int) -> Tensor:
        rows = zip(tables, computed, new, strict=True)
        return torch.tensor([slot(t, p, c, size) for t, c, n in rows for p in range(c, c + n)])

    return mapping


def slot_of(table: list[int], position: int, size: int) -> int:
    return table[position // size] * size + position % size


right_slots = slots_by(lambda table, p, c, size: slot_of(table, p, size))
SLOT_MISTAKES = {
    "the new tokens are placed from position 0 on. They come after what is cached, from position "
    "num_computed on": slots_by(lambda table, p, c, size: slot_of(table, p - c, size)),
    "the new tokens are placed one too far. The cached tokens have positions 0 … num_computed - 1, so the "
    "first new token has position num_computed": (
        slots_by(lambda table, p, c, size: slot_of([*table, 0], p + 1, size))
    ),
    "the request's tokens are put in one piece after its first block. The next block may be anywhere: look "
    "each block up in the table": (slots_by(lambda table, p, c, size: table[0] * size + p)),
    "a block's number is used as a slot. Block b has block_size slots, and the first is b · block_size": (
        slots_by(lambda table, p, c, size: table[p // size] + p % size)
    ),
    "the block table is not used. A position alone does not tell in which block the token is": slots_by(
        lambda table, p, c, size: p
    ),
    "every token gets the first slot of its block, and overwrites the token before it. Add position % "
    "block_size": slots_by(lambda table, p, c, size: table[p // size] * size),
    "the place in the block is counted from the start of the step. It is the position modulo block_size": slots_by(
        lambda table, p, c, size: table[p // size] * size + (p - c) % size
    ),
    "all tokens use the table of the first request. Each request has its own block table": (
        lambda tables, *rest: right_slots([tables[0] * 9] * len(tables), *rest)
    ),
}


@SLOT_MAPPING.part("a decode step and a chunk, of three requests", points=2)
def slots_batch(slot_mapping: Answer) -> None:
    case = [[7, 2, 9, 4], [5], [3, 8]], [6, 0, 4], [5, 3, 1], 4
    expect.cases(slot_mapping, right_slots, [case], axes="T", mistakes=SLOT_MISTAKES)


@SLOT_MAPPING.part("a whole prompt, and requests without new tokens", points=1)
def slots_prompt(slot_mapping: Answer) -> None:
    prompt = [[3, 1, 0]], [0], [11], 4
    idle = [[2], [6, 5], [9], [1, 4]], [3, 4, 4, 2], [0, 2, 0, 5], 4
    expect.cases(slot_mapping, right_slots, [prompt, idle], axes="T")


@SLOT_MAPPING.part("token by token, in blocks of any size", points=1)
def slots_sizes(slot_mapping: Answer) -> None:
    table = [5, 0, 7, 2, 9, 1, 8, 3, 6, 4, 10, 11]
    steps = [([table], [p], [1], size) for size in (1, 2, 3, 7, 16) for p in range(11)]
    chunks = [([table, table[::-1]], [4, 2], [5, 9], size) for size in (1, 3, 6, 11)]
    expect.cases(slot_mapping, right_slots, steps + chunks, axes="T")


# --- 04.3 paged_attention ---

Request = tuple[Tensor, Tensor, Tensor, Tensor, int]  # what paged_attention takes
NUM_BLOCKS, BLOCK, KV_HEADS, WIDTH = 12, 4, 2, 8


def request(table: list[int], seq_len: int, n: int, block: int = BLOCK) -> Request:
    """Return a request in a pool whose other slots hold ordinary numbers, so that each mistake has its own result."""
    k_cache, v_cache = (expect.randn(NUM_BLOCKS, block, KV_HEADS, WIDTH, seed=seed) for seed in (0, 1))
    q = expect.randn(n, 2 * KV_HEADS, WIDTH, seed=2)
    return q, k_cache, v_cache, torch.tensor(table, dtype=torch.int32), seq_len


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q, k, v, None)


def table_itself(table: Tensor) -> Tensor:
    return table


def whole_pool(table: Tensor) -> Tensor:
    return torch.arange(NUM_BLOCKS)


def attention_over(
    k_blocks: Callable[[Tensor], Tensor],
    v_blocks: Callable[[Tensor], Tensor] | None = None,
    tokens: Callable[[int], int] = lambda seq_len: seq_len,
    over: Callable[[Tensor, Tensor, Tensor], Tensor] = causal,
    flat: Callable[[Tensor], Tensor] = lambda blocks: blocks.flatten(0, 1),
) -> Callable[..., Tensor]:
    """Return a paged_attention that gathers these blocks, functions of the table, and attends to so many tokens."""

    def attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, table: Tensor, seq_len: int) -> Tensor:
        k = flat(k_cache[k_blocks(table)])[: tokens(seq_len)]
        return over(q, k, flat(v_cache[(v_blocks or k_blocks)(table)])[: tokens(seq_len)])

    return attention


right_attention = attention_over(table_itself)
ATTENTION_MISTAKES = {
    "the blocks are read as if they followed the first one in memory. Look each block up in the table": (
        attention_over(lambda table: torch.arange(int(table[0]), NUM_BLOCKS))
    ),
    "the pool is read from its beginning: the table is not used": attention_over(whole_pool),
    "slots beyond seq_len are read. Only the first part of the last block belongs to the request": attention_over(
        table_itself, tokens=lambda seq_len: -(-seq_len // BLOCK) * BLOCK
    ),
    "the blocks are read in the order of memory. The text is in the order of the table": attention_over(
        lambda table: table.sort().values
    ),
    "the last, half-full block is left out. seq_len tokens take ceil(seq_len / block_size) blocks": attention_over(
        table_itself, tokens=lambda seq_len: seq_len // BLOCK * BLOCK
    ),
    "the keys are gathered through the table, the values are not": attention_over(table_itself, whole_pool),
    "the values are gathered through the table, the keys are not": attention_over(whole_pool, table_itself),
    "the gathered blocks are flattened place by place: all first tokens come before all second tokens. Keep "
    "the tokens of a block together": attention_over(
        table_itself, flat=lambda blocks: blocks.transpose(0, 1).flatten(0, 1)
    ),
    "the first query is put at the first key, as torch's is_causal does. The last query belongs to the last "
    "key": (attention_over(table_itself, over=lambda q, k, v: causal(q, k[: len(q)], v[: len(q)]))),
}
SEES_ALL = {
    "a query of the chunk sees the tokens after its own. Mask them": attention_over(
        table_itself, over=lambda q, k, v: torch.cat([causal(row[None], k, v) for row in q])
    )
}


@PAGED_ATTENTION.part("the request's blocks, in the order of its table", points=2)
def paged_order(attention: Answer) -> None:
    cases = [request([6, 9, 1], 10, 1)]
    expect.cases(attention, right_attention, cases, axes="n H D", mistakes=ATTENTION_MISTAKES)


@PAGED_ATTENTION.part("a chunk of several tokens", points=1)
def paged_chunk(attention: Answer) -> None:
    cases = [request([6, 9, 1], 11, 3), request([4, 2], 7, 7), request([7, 3, 5, 0], 10, 4, block=3)]
    mistakes = ATTENTION_MISTAKES | SEES_ALL
    expect.cases(attention, right_attention, cases, axes="n H D", mistakes=mistakes)


@PAGED_ATTENTION.part("no slot is read that is not the request's", points=1)
def paged_poison(attention: Answer) -> None:
    for junk in (torch.nan, torch.inf, -torch.inf, 1e30):
        for seq_len, n in ((10, 1), (8, 2), (3, 3)):
            q, k_cache, v_cache, table, _ = request([6, 9, 1, 3], seq_len, n)  # block 3 is not written yet
            right = right_attention(q, k_cache, v_cache, table, seq_len)
            position = torch.arange(seq_len)
            others = torch.ones(NUM_BLOCKS * BLOCK, dtype=torch.bool)
            others[table[position // BLOCK] * BLOCK + position % BLOCK] = False
            for cache in (k_cache, v_cache):
                cache.view(-1, KV_HEADS, WIDTH)[others] = junk
            out = attention(q, k_cache, v_cache, table, seq_len)
            expect.tensor(out, right.shape, "n H D", right.dtype)
            expect.that(
                bool(torch.allclose(out, right, 1e-4, 1e-4)),
                f"with seq_len = {seq_len}, the result changes when all slots that are not the request's hold "
                f"{junk}, so one of them is read. A mask does not help, because 0 · NaN is NaN. Cut the keys "
                "and values to seq_len before attention",
            )


@PAGED_ATTENTION.part("the pool is not copied", points=2, alone=True)
def paged_memory(attention: Answer) -> None:
    k_cache, v_cache = (expect.randn(1024, 16, 4, 64, seed=seed) for seed in (6, 7))  # 16 MiB each
    q, table = expect.randn(1, 8, 64, seed=8), torch.arange(1000, 800, -7, dtype=torch.int32)
    seq_len = len(table) * 16 - 5
    out, added = expect.peak_of(
        lambda: attention(q, k_cache, v_cache, table[:2], 17),
        lambda: attention(q, k_cache, v_cache, table, seq_len),
    )
    expect.close(out, right_attention(q, k_cache, v_cache, table, seq_len), "n H D")
    # The request's own keys and values are 0.9 MB. One copy per query head is allowed.
    if added > k_cache.nbytes // 2:
        raise Wrong(
            "the whole pool is copied: the call needs more than half the memory of K, which is "
            f"{k_cache.nbytes / 1e6:.0f} MB, for a request of {len(table)} blocks. Index the pool with the "
            "block table first"
        )


# --- 04.4 Sequence ---


class Watched(BlockAllocator):
    """The package's allocator. It counts the blocks that it lends."""

    lent = 0

    def allocate(self) -> int | None:
        block = super().allocate()
        self.lent += block is not None
        return block


class Memory:
    """A pool of slots. It checks what each of several texts reads from it."""

    def __init__(self, num_blocks: int, size: int) -> None:
        self.allocator, self.size, self.num_blocks = Watched(num_blocks), size, num_blocks
        self.slots = [-1] * num_blocks * size
        self.next = 0

    def append(self, text: Any, written: list[int]) -> bool:
        """Write one more token as an engine does: first the copy, then the token. Return False if no block is free."""
        before = self._state(text)
        result = text.append()
        if result is None:
            expect.that(
                self._state(text) == before,
                "append() has returned None, so nothing may have changed: the block table, the counts, "
                "num_tokens. Allocate the new block before you free the old one",
            )
            free = self.allocator.num_free
            expect.that(free == 0, f"append() returns None, but {free} blocks are free")
            return False
        if not (isinstance(result, tuple) and len(result) == 2):
            raise Wrong(f"append() returns {result!r:.60}; it should return (slot, copy)")
        slot, copy = result
        if not hasattr(slot, "__index__") or not 0 <= slot < len(self.slots):
            raise Wrong(f"append() returns slot {slot!r}. The memory has slots 0 to {len(self.slots) - 1}")
        if copy is not None:
            self._copy(copy, dict(before[0]), before[1] // self.size, slot // self.size)
        holders = self.allocator.holders(slot // self.size)
        expect.that(
            holders <= 1,
            f"append() returns a slot in block {slot // self.size}, which {holders} sequences hold. The data "
            "of the others is overwritten. Copy a shared block, and write into the copy",
        )
        self.slots[slot] = self.next
        written.append(self.next)
        self.next += 1
        return True

    def _state(self, text: Any) -> tuple[list[tuple[int, int]], int]:
        """Return the blocks of a text with their holders, and its number of tokens."""
        return [(block, self.allocator.holders(block)) for block in text.block_table], text.num_tokens

    def _copy(self, copy: Any, holders: dict[int, int], number: int, written: int) -> None:
        """Copy a shared block, which must be block `number` of the table before, into the one that is written."""
        if not (isinstance(copy, tuple) and len(copy) == 2):
            raise Wrong(f"the copy is {copy!r:.60}; it should be a pair (from, to) of blocks, or None")
        source, target = copy
        old = [*holders, None][number]
        if target == old != source:
            raise Wrong(
                "the copy is the wrong way round. The pair is (from, to): from the shared block to the new "
                "one"
            )
        if holders.get(source) == 1:
            raise Wrong(
                f"block {source} is copied, but no other sequence holds it. A sequence writes into its own "
                "block without a copy"
            )
        if source != old:
            raise Wrong(
                f"block {source} is copied, but the next token does not go into it. Copy only the block that "
                "is written"
            )
        if written == source:
            raise Wrong(
                f"the slot is in block {source}, the old one. After the copy, the token goes into block "
                f"{target}"
            )
        size = self.size
        self.slots[target * size : (target + 1) * size] = self.slots[source * size : (source + 1) * size]

    def check(self, text: Any, written: list[int], which: str) -> None:
        """Raise Wrong unless `text` reads the tokens that were written to it."""
        expect.that(
            text.num_tokens == len(written),
            f"{which} has num_tokens = {text.num_tokens} after {len(written)} tokens. A fork has the same "
            "tokens as its parent, and each append adds one",
        )
        needed = -(-len(written) // self.size)
        expect.that(
            len(text.block_table) == needed,
            f"{which} holds {len(text.block_table)} blocks for {len(written)} tokens; it needs {needed} "
            f"blocks of {self.size}",
        )
        read = [self.slots[slot_of(text.block_table, p, self.size)] for p in range(len(written))]
        if read != written:
            place = next(p for p, token in enumerate(read) if token != written[p])
            raise Wrong(
                f"token {place} of {which} is not copied. The new block must hold all tokens of the shared "
                "block"
            )


def some_text(memory: Memory, make: Answer, tokens: int) -> tuple[Any, list[int]]:
    text, written = make(memory.allocator, memory.size), list[int]()
    for _ in range(tokens):
        memory.append(text, written)
    return text, written


@SEQUENCE.part("one text takes a block when it needs one", points=1)
def sequence_grows(make: Answer) -> None:
    memory = Memory(6, 4)
    text, written = some_text(memory, make, 9)
    memory.check(text, written, "the text")
    lent = memory.allocator.lent
    expect.that(lent == 3, f"9 tokens in blocks of 4 take 3 blocks; append() allocates {lent}")
    for _ in range(2):  # an empty sequence has no block to give back
        text.free()
        free = memory.allocator.num_free
        expect.that(
            free == 6,
            f"free() gives back {free - 3} of 3 blocks. Call allocator.free(block) for each block of the table",
        )
        expect.that(
            not text.block_table and text.num_tokens == 0,
            "after free() the sequence must be empty: an empty block_table and num_tokens = 0. Its blocks "
            "will belong to other sequences",
        )


@SEQUENCE.part("a fork shares everything and takes nothing", points=1)
def sequence_fork(make: Answer) -> None:
    memory = Memory(8, 4)
    text, written = some_text(memory, make, 6)
    child = text.fork()
    expect.something(child, "what fork() returns")
    expect.that(
        memory.allocator.lent == 2,
        "fork() takes no new block. The two sequences share all blocks until one of them writes",
    )
    expect.that(
        child.block_table is not text.block_table or isinstance(child.block_table, tuple),
        "the child's block_table is the same list as the parent's, so a block that one appends appears in "
        "both. Copy the list",
    )
    expect.equal(list(child.block_table), list(text.block_table), "the child's block_table")
    expect.that(
        all(memory.allocator.holders(block) == 2 for block in text.block_table),
        "after fork() the allocator knows of one holder only. Call allocator.share(block) for each block. "
        "Otherwise the first sequence that is freed takes the other's memory away",
    )
    memory.check(child, written, "the child")


@SEQUENCE.part("a shared block is copied before it is written", points=2)
def sequence_copies(make: Answer) -> None:
    # Tokens per block, tokens before the two forks, appends to each of the three, and blocks then.
    for size, before, appended, blocks in ((4, 6, 3, 7), (4, 8, 1, 5), (3, 4, 1, 4), (1, 2, 2, 8)):
        memory = Memory(12, size)
        text, written = some_text(memory, make, before)
        twins = [(text, written), *((text.fork(), written[:]) for _ in range(2))]
        for _ in range(appended):
            for twin, tokens in twins:
                memory.append(twin, tokens)
        for name, (twin, tokens) in zip(
            ("the parent", "the first child", "the second child"), twins, strict=True
        ):
            memory.check(twin, tokens, name)
        used = len({block for twin, _ in twins for block in twin.block_table})
        expect.that(
            used == blocks,
            f"three texts of {before + appended} tokens, of which they share {before}, use {used} blocks of "
            f"{size}; {blocks} are enough",
        )
        leaked = 12 - used - memory.allocator.num_free
        expect.that(
            leaked == 0, f"{leaked} blocks leaked. A sequence that goes on with a copy must free the original"
        )


@SEQUENCE.part("without a free block nothing changes", points=1)
def sequence_full(make: Answer) -> None:
    memory = Memory(2, 4)
    text, written = some_text(memory, make, 6)
    child, tokens = text.fork(), written[:]
    expect.that(
        not memory.append(child, tokens) and not memory.append(text, written),
        "append() must return None if it must copy a shared block and no block is free",
    )
    text.free()
    for _ in range(2):
        expect.that(
            memory.append(child, tokens),
            "append() returns None, but the block is now the sequence's own and needs no copy",
        )
    expect.that(
        not memory.append(child, tokens),
        "append() must return None if it needs a block for token 8 and no block is free",
    )
    memory.check(child, tokens, "the child")


@SEQUENCE.part("no block leaks and no text is lost in 900 random calls", points=2)
def sequence_random(make: Answer) -> None:
    dice = random.Random(1)
    for size in (4, 1, 3):
        memory = Memory(24, size)
        texts: list[tuple[Any, list[int]]] = [(make(memory.allocator, size), []) for _ in range(2)]
        for call in range(301):
            text, written = dice.choice(texts)
            what = dice.random()
            if what < 0.75:
                memory.append(text, written)
            elif what < 0.87 and len(texts) < 6:
                texts.append((text.fork(), written[:]))
            elif what > 0.93:
                text.free()
                written.clear()
            tables = [block for other, _ in texts for block in other.block_table]
            lost = memory.num_blocks - len(set(tables)) - memory.allocator.num_free
            expect.that(lost == 0, f"{lost} blocks leaked: they are allocated, but in no block table")
            if call % 10 == 0:
                for block in set(tables):
                    expect.equal(memory.allocator.holders(block), tables.count(block), f"holders({block})")
                for other, tokens in texts:
                    memory.check(other, tokens, "a text")
