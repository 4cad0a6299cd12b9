"""Chapter 04, paged attention: its exercises' checks."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minillm.cache.blocks import BlockAllocator
from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch04 import ALLOCATOR, PAGED_ATTENTION, SEQUENCE, SLOT_MAPPING
from minillm.ops import attend


def count_free(allocator: Any) -> int:
    """`num_free`, which must be a number."""
    value = allocator.num_free
    if callable(value):
        raise Wrong(
            "num_free is a method; it is a property: `@property` above it, and it is read without brackets"
        )
    expect.equal(value, value if type(value) is int else 0, "num_free")
    return int(value)


def take(allocator: Any, held: Sequence[int], num_blocks: int) -> int:
    """A block from `allocate` that is nobody's, held by one from now on."""
    block = allocator.allocate()
    if type(block) is not int:
        raise Wrong(f"allocate() gives {block!r} while {num_blocks - len(set(held))} blocks are free")
    if not 0 <= block < num_blocks:
        raise Wrong(
            f"allocate() gives block {block}: the blocks are numbered from 0, the last is {num_blocks - 1}"
        )
    if block in held:
        raise Wrong(f"block {block} is lent twice: allocate() must take it out of the queue")
    expect.that(
        allocator.holders(block) == 1,
        f"after allocate() block {block} has {allocator.holders(block)} holders; it is held by one",
    )
    return block


@ALLOCATOR.part("each block is lent once", points=1)
def allocator_lends(make: Answer) -> None:
    allocator, held = make(5), list[int]()
    expect.that(count_free(allocator) == 5, f"Allocator(5).num_free is {allocator.num_free}; all 5 are free")
    for _ in range(5):
        held.append(take(allocator, held, 5))
    another = make(5)
    for left in (4, 3, 2, 1, 0):
        another.allocate()
        expect.that(
            count_free(another) == left,
            f"num_free is {another.num_free} after {5 - left} of 5 blocks were lent",
        )
    try:
        block = allocator.allocate()
    except (IndexError, KeyError, StopIteration) as error:
        raise Wrong(
            f"allocate() without a free block raises {type(error).__name__}; it returns None, and the scheduler "
            "makes room"
        ) from None
    expect.that(block is None, f"allocate() without a free block gives {block!r}; None is wanted")


@ALLOCATOR.part("a block is free after its last holder", points=2)
def allocator_counts(make: Answer) -> None:
    allocator = make(4)
    first, second = (allocator.allocate() for _ in range(2))
    for holders in (2, 3):
        allocator.share(first)
        expect.that(
            allocator.holders(first) == holders,
            f"holders() is {allocator.holders(first)} for a block that {holders} hold: share() adds one",
        )
    expect.that(
        count_free(allocator) == 2,
        f"num_free is {allocator.num_free} where 2 of 4 blocks are held, one of them by 3: num_free counts blocks, "
        "not holders",
    )
    for holders in (2, 1, 0):
        allocator.free(first)
        free = 2 + (holders == 0)
        if count_free(allocator) > free:
            raise Wrong(
                f"a block that 3 held is free when {3 - holders} let go of it: it is free after its last holder"
            )
        expect.that(
            (allocator.holders(first), count_free(allocator)) == (holders, free),
            f"after free() the block has {allocator.holders(first)} holders and num_free is {allocator.num_free}; "
            f"right are {holders} and {free}",
        )
    try:
        allocator.free(first)
    except ValueError:
        pass
    else:
        raise Wrong(
            "free() of a free block must raise ValueError: unseen, the block would be lent to two who do not know of "
            "each other"
        )
    expect.that(
        (allocator.holders(second), count_free(allocator)) == (1, 3),
        "a refused free() has changed something",
    )


@ALLOCATOR.part("the queue of free blocks", points=2)
def allocator_queue(make: Answer) -> None:
    allocator = make(6)
    blocks = [allocator.allocate() for _ in range(4)]
    allocator.free(blocks[1])
    expect.that(
        allocator.allocate() == blocks[1],
        "a freed block goes to the front of the queue: nobody wants what is in it, so it is lent first",
    )
    allocator.free(blocks[2], keep=True)
    allocator.free(blocks[0])
    lent = [allocator.allocate() for _ in range(4)]
    expect.that(
        lent[0] == blocks[0] and lent[-1] == blocks[2],
        "a block freed with keep=True goes to the back of the queue: its content is worth keeping, so all others are "
        "lent before it",
    )
    allocator.free(blocks[3], keep=True)
    free = count_free(allocator)
    allocator.share(blocks[3])
    expect.that(
        count_free(allocator) == free - 1 and allocator.allocate() != blocks[3],
        "share() of a free block: it is held from now on, so it must leave the queue, or it is lent to somebody else",
    )
    expect.that(
        allocator.holders(blocks[3]) == 1,
        f"a free block that was shared has {allocator.holders(blocks[3])} holders; it has 1",
    )


@ALLOCATOR.part("no block leaks in 2,000 random calls", points=1)
def allocator_random(make: Answer) -> None:
    dice, num_blocks = random.Random(0), 12
    allocator, held = make(num_blocks), list[int]()  # a block once for each of its holders
    for _ in range(2000):
        what = dice.choice(("allocate", "allocate", "share", "free", "free"))
        if what == "allocate" and len(set(held)) < num_blocks:
            held.append(take(allocator, held, num_blocks))
        elif what == "share" and held:
            held.append(dice.choice(held))
            allocator.share(held[-1])
        elif what == "free" and held:
            allocator.free(held.pop(dice.randrange(len(held))), keep=dice.random() < 0.5)
        for block in range(num_blocks):
            expect.equal(allocator.holders(block), held.count(block), f"holders({block}) after {what}")
        expect.equal(count_free(allocator), num_blocks - len(set(held)), f"num_free after {what}")


TABLES, COMPUTED, NEW, SIZE = [[7, 2, 9, 4], [5], [3, 8]], [6, 0, 4], [5, 3, 1], 4


def slots_of(
    tables: Sequence[Sequence[int]], computed: Sequence[int], new: Sequence[int], size: int
) -> list[int]:
    return [
        t[p // size] * size + p % size
        for t, c, n in zip(tables, computed, new, strict=True)
        for p in range(c, c + n)
    ]


def check_slots(
    slots: object, tables: list[list[int]], computed: list[int], new: list[int], size: int
) -> None:
    """Refuse slots that are not right, in the terms of one who computed them."""
    right = slots_of(tables, computed, new, size)
    rows = list(zip(tables, computed, new, strict=True))
    mistakes = {
        "the new tokens are placed from position 0 on: they stand after what is cached, from num_computed on": (
            slots_of(tables, [0] * len(new), new, size)
        ),
        "the new tokens are placed one too far: num_computed tokens are cached, at positions 0 … num_computed - 1": [
            t[p // size] * size + p % size if p // size < len(t) else -1
            for t, c, n in rows
            for p in range(c + 1, c + n + 1)
        ],
        "the request's tokens are laid out in one piece from its first block on: the next block may lie anywhere": [
            t[0] * size + p for t, c, n in rows for p in range(c, c + n)
        ],
        "a block's number is taken for a slot: block b begins at slot b · block_size, as it has block_size slots": [
            t[p // size] + p % size for t, c, n in rows for p in range(c, c + n)
        ],
        "the block table is not used: a position in the text says nothing about where its block lies": [
            p for t, c, n in rows for p in range(c, c + n)
        ],
        "every token gets the first slot of its block, and overwrites the one before": [
            t[p // size] * size for t, c, n in rows for p in range(c, c + n)
        ],
        "the place in the block is counted from the start of the step; it is the position modulo block_size": [
            t[p // size] * size + (p - c) % size for t, c, n in rows for p in range(c, c + n)
        ],
        "all tokens go through the first request's table: each request has its own block table": [
            tables[0][p // size] * size + p % size for t, c, n in rows for p in range(c, c + n)
        ],
    }
    expect.tensor(slots, [len(right)], "T", torch.int64)
    assert isinstance(slots, Tensor)
    for message, mistaken in mistakes.items():
        if mistaken != right and slots.tolist() == mistaken:
            raise Wrong(message)
    expect.equal(slots.tolist(), right, "the slots")


@SLOT_MAPPING.part("a decode step and a chunk, of three requests", points=2)
def slots_batch(slot_mapping: Answer) -> None:
    check_slots(slot_mapping(TABLES, COMPUTED, NEW, SIZE), TABLES, COMPUTED, NEW, SIZE)


@SLOT_MAPPING.part("a whole prompt", points=1)
def slots_prompt(slot_mapping: Answer) -> None:
    case = [[3, 1, 0]], [0], [11], 4
    check_slots(slot_mapping(*case), *case)


@SLOT_MAPPING.part("token by token, in blocks of any size", points=1)
def slots_sizes(slot_mapping: Answer) -> None:
    for size in (1, 2, 3, 16):
        table = [5, 0, 7, 2, 9, 1, 8, 3, 6, 4, 10, 11][: -(-11 // size)]
        one = [int(slot_mapping([table], [p], [1], size)[0]) for p in range(11)]
        expect.equal(one, slots_of([table], [0], [11], size), f"11 slots, one a step, in blocks of {size}")
        expect.that(len(set(one)) == 11, f"two tokens of a text share a slot, in blocks of {size}")


NUM_BLOCKS, BLOCK, KV_HEADS, WIDTH = 12, 4, 2, 8


def pool(seed: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a whole pool, every slot filled."""
    shape = (NUM_BLOCKS, BLOCK, KV_HEADS, WIDTH)
    return expect.randn(*shape, seed=seed), expect.randn(*shape, seed=seed + 1)


def side_by_side(cache: Tensor, table: Tensor, seq_len: int) -> Tensor:
    return cache[table].flatten(0, 1)[:seq_len]


def check_attention(attention: Answer, table: Tensor, seq_len: int, n: int) -> None:
    """One request in a pool whose other slots hold ordinary numbers, so that each mistake has its own result."""
    k_cache, v_cache = pool(seed=0)
    q = expect.randn(n, 2 * KV_HEADS, WIDTH, seed=2)
    first, used = int(table[0]), table[: -(-seq_len // BLOCK)]

    def mistake(blocks: Tensor, length: int = seq_len) -> Tensor:
        return attend(q, side_by_side(k_cache, blocks, length), side_by_side(v_cache, blocks, length), None)

    def transposed(cache: Tensor) -> Tensor:
        return cache[table].transpose(0, 1).flatten(0, 1)[:seq_len]

    k, v = side_by_side(k_cache, used, seq_len), side_by_side(v_cache, used, seq_len)
    every = torch.arange(NUM_BLOCKS)
    mistakes = {
        "the blocks are read as if they followed the first one in memory: each is looked up in the table": mistake(
            every[first:]
        ),
        "the pool is read from its beginning, the table is not used": mistake(every),
        f"slots beyond seq_len = {seq_len} are attended to: the last block belongs to the request only so far": (
            mistake(table, len(table) * BLOCK)
        ),
        "the blocks are read as they lie in memory: the text is in the order of the table": mistake(
            used.sort().values
        ),
        "the last, half-full block is left out: seq_len tokens take ceil(seq_len / block_size) blocks": mistake(
            used, seq_len // BLOCK * BLOCK
        ),
        "the keys are gathered through the table, the values are not": attend(
            q, k, side_by_side(v_cache, every, seq_len), None
        ),
        "the values are gathered through the table, the keys are not": attend(
            q, side_by_side(k_cache, every, seq_len), v, None
        ),
        "the gathered blocks are flattened place by place, all first tokens before all second ones: keep each block "
        "together": attend(q, transposed(k_cache), transposed(v_cache), None),
    }
    expect.close(
        attention(q, k_cache, v_cache, table, seq_len),
        attend(q, k, v, None),
        "n H D",
        mistakes=mistakes,
    )


@PAGED_ATTENTION.part("the request's blocks, in the order of its table", points=2)
def paged_order(attention: Answer) -> None:
    check_attention(attention, torch.tensor([6, 9, 1], dtype=torch.int32), 10, 1)


@PAGED_ATTENTION.part("a chunk of several tokens", points=1)
def paged_chunk(attention: Answer) -> None:
    check_attention(attention, torch.tensor([6, 9, 1], dtype=torch.int32), 11, 3)


@PAGED_ATTENTION.part("no slot is read that is not the request's", points=1)
def paged_poison(attention: Answer) -> None:
    table = torch.tensor([6, 9, 1, 3], dtype=torch.int32)  # block 3 is given already, and not written yet
    for seq_len, n in ((10, 1), (8, 2), (3, 3)):
        k_cache, v_cache = pool(seed=3)
        q = expect.randn(n, 2 * KV_HEADS, WIDTH, seed=5)
        k, v = side_by_side(k_cache, table, seq_len), side_by_side(v_cache, table, seq_len)
        right = attend(q, k, v, None)
        mine = table[torch.arange(seq_len) // BLOCK] * BLOCK + torch.arange(seq_len) % BLOCK
        others = torch.ones(NUM_BLOCKS * BLOCK, dtype=torch.bool)
        others[mine] = False
        for cache in (k_cache, v_cache):
            cache.view(-1, KV_HEADS, WIDTH)[others] = torch.nan
        out = attention(q, k_cache, v_cache, table, seq_len)
        expect.tensor(out, right.shape, "n H D", right.dtype)
        expect.that(
            not out.isnan().any(),
            f"with seq_len = {seq_len} the result is NaN, which stands in every slot that is not the request's: one of "
            "them is read. A mask cannot help, as 0 · NaN is NaN: cut the keys and values to seq_len before attention",
        )
        expect.close(out, right, "n H D")


@PAGED_ATTENTION.part("the pool is not copied", points=2, alone=True)
def paged_memory(attention: Answer) -> None:
    num_blocks, size, heads, width = 2048, 16, 4, 64
    k_cache, v_cache = (
        expect.randn(num_blocks, size, heads, width, seed=seed) for seed in (6, 7)
    )  # 32 MiB each
    q, table = expect.randn(1, 8, width, seed=8), torch.arange(1000, 900, -7, dtype=torch.int32)
    seq_len = len(table) * size - 5
    out, added = expect.peak_of(
        lambda: attention(q, k_cache, v_cache, table[:2], size + 1),
        lambda: attention(q, k_cache, v_cache, table, seq_len),
    )
    k, v = side_by_side(k_cache, table, seq_len), side_by_side(v_cache, table, seq_len)
    expect.close(out, attend(q, k, v, None), "n H D")
    # The request's own keys and values are 0.5 MB; copies for each query head are forgiven. A copied pool is 34 MB.
    if added > k_cache.nbytes // 2:
        raise Wrong(
            f"the whole pool is copied: the call needs more than half the memory of K, {k_cache.nbytes / 1e6:.0f} MB, "
            f"for a request whose keys take {k.nbytes / 1e6:.1f} MB. Pick the request's blocks first"
        )


class Watched(BlockAllocator):
    """The package's allocator, which counts what it lends."""

    lent = 0

    def allocate(self) -> int | None:
        block = super().allocate()
        self.lent += block is not None
        return block


class Memory:
    """A pool of slots, and what each of several texts should read from it."""

    def __init__(self, num_blocks: int, size: int) -> None:
        self.allocator, self.size = Watched(num_blocks), size
        self.slots = [-1] * num_blocks * size
        self.next = 0

    def append(self, text: Any, written: list[int]) -> bool:
        """Write one more token as an engine would: the copy first. False where there is no block."""
        before, held = list(text.block_table), [self.allocator.holders(b) for b in text.block_table]
        result = text.append()
        if result is None:
            return False
        expect.that(
            isinstance(result, tuple) and len(result) == 2,
            f"append() returns {result!r:.60}; (slot, copy) is wanted",
        )
        slot, copy = result
        index = len(written) // self.size
        if copy is not None:
            self._copy(copy, before, held, index)
        if not (type(slot) is int and 0 <= slot < len(self.slots)):
            raise Wrong(f"append() gives slot {slot!r}; the memory has slots 0 to {len(self.slots) - 1}")
        self.slots[slot] = self.next
        written.append(self.next)
        self.next += 1
        return True

    def _copy(self, copy: Any, before: list[int], held: list[int], index: int) -> None:
        expect.that(
            isinstance(copy, tuple) and len(copy) == 2,
            f"the copy is {copy!r:.60}; a pair (from, to) of blocks is wanted, or None",
        )
        source, target = copy
        if index < len(before) and target == before[index] and source != before[index]:
            raise Wrong(
                "the copy is the wrong way round: the pair is (from, to), from the shared block to the new one"
            )
        if source in before and held[before.index(source)] == 1:
            raise Wrong(
                f"block {source} is copied though nobody else holds it: a sequence writes into its own block"
            )
        size = self.size
        self.slots[target * size : (target + 1) * size] = self.slots[source * size : (source + 1) * size]

    def read(self, text: Any, length: int) -> list[int]:
        return [
            self.slots[text.block_table[p // self.size] * self.size + p % self.size] for p in range(length)
        ]

    def check(self, text: Any, written: list[int], whose: str) -> None:
        """`text` reads what was written to it. A wrong token is a newer one (overwritten) or an older (not copied)."""
        expect.that(
            text.num_tokens == len(written),
            f"{whose} has num_tokens = {text.num_tokens} after {len(written)} tokens: a fork has the same tokens, and "
            "each append adds one",
        )
        needed = -(-len(written) // self.size)
        expect.that(
            len(text.block_table) == needed,
            f"{whose} holds {len(text.block_table)} blocks for {len(written)} tokens; {needed} of {self.size} are "
            "needed",
        )
        for place, (got, right) in enumerate(zip(self.read(text, len(written)), written, strict=True)):
            if got != right and got > max(written[: place + 1]) and got not in written:
                raise Wrong(
                    f"token {place} of {whose} is overwritten by another sequence: a block with two holders is copied "
                    "before it is written"
                )
            if got != right:
                raise Wrong(
                    f"token {place} of {whose} is not copied: what the shared block held must be in the new one too"
                )


def some_text(memory: Memory, make: Answer, tokens: int) -> tuple[Any, list[int]]:
    text, written = make(memory.allocator, memory.size), list[int]()
    for _ in range(tokens):
        expect.that(memory.append(text, written), "append() returns None while blocks are free")
    return text, written


@SEQUENCE.part("one text takes a block when it needs one", points=1)
def sequence_grows(make: Answer) -> None:
    memory = Memory(6, 4)
    text, written = some_text(memory, make, 9)
    memory.check(text, written, "the text")
    expect.that(
        memory.allocator.lent == 3, f"9 tokens in blocks of 4 take 3 blocks, not {memory.allocator.lent}"
    )
    text.free()
    expect.that(
        memory.allocator.num_free == 6,
        f"free() gives back {memory.allocator.num_free - 3} of 3 blocks",
    )
    expect.that(
        not text.block_table and text.num_tokens == 0,
        "after free() the sequence must be empty: it holds blocks that are somebody else's now",
    )


@SEQUENCE.part("a fork shares everything and takes nothing", points=1)
def sequence_fork(make: Answer) -> None:
    memory = Memory(8, 4)
    text, written = some_text(memory, make, 6)
    child = text.fork()
    expect.something(child, "what fork() returns")
    if memory.allocator.lent > 2:
        raise Wrong("fork() takes no new block: the two share all blocks until one of them writes")
    expect.that(
        child.block_table is not text.block_table or not isinstance(child.block_table, list),
        "the child's block_table is the same list as the parent's: what one appends, both have. Copy the list",
    )
    expect.equal(list(child.block_table), list(text.block_table), "the child's block_table")
    expect.that(
        all(memory.allocator.holders(block) == 2 for block in text.block_table),
        "after fork() the allocator knows of one holder still: allocator.share(block) for each block, or the first to "
        "finish takes the other's memory away",
    )
    memory.check(child, written, "the child")


@SEQUENCE.part("whoever writes into a shared block copies it", points=2)
def sequence_copies(make: Answer) -> None:
    memory = Memory(12, 4)
    text, written = some_text(memory, make, 6)
    twins = [(text, written), *((text.fork(), written[:]) for _ in range(2))]
    for _ in range(3):
        for twin, tokens in twins:
            memory.append(twin, tokens)
    for name, (twin, tokens) in zip(
        ("the parent", "the first child", "the second child"), twins, strict=True
    ):
        memory.check(twin, tokens, name)
    # Block 0 is shared by all. Two copies of block 1 (the last holder keeps the original), and 3 x 1 third blocks.
    used = len({block for twin, _ in twins for block in twin.block_table})
    expect.that(used == 7, f"three texts of 9 tokens that share 6 use {used} blocks; 7 are enough")
    expect.that(
        memory.allocator.num_free == 12 - used,
        f"blocks leaked: {12 - used - memory.allocator.num_free}. Whoever goes on with a copy lets go of the original",
    )


@SEQUENCE.part("without a free block nothing changes", points=1)
def sequence_full(make: Answer) -> None:
    memory = Memory(2, 4)
    text, written = some_text(memory, make, 6)
    child = text.fork()
    expect.that(
        not memory.append(child, written[:]),
        "append() must return None where a shared block would have to be copied and none is free",
    )
    same = [
        (list(child.block_table), child.num_tokens) == (list(text.block_table), 6),
        [memory.allocator.holders(block) for block in text.block_table] == [2, 2],
    ]
    expect.that(
        all(same),
        "append() has returned None, so nothing may have changed: the block table, the counts, num_tokens. Ask for "
        "the new block before you let go of the old one",
    )
    text.free()
    tokens = written[:]
    expect.that(
        memory.append(child, tokens), "append() returns None where the block is the sequence's own by now"
    )
    memory.check(child, tokens, "the child")


@SEQUENCE.part("no block leaks and no text is lost in 1,500 random calls", points=2)
def sequence_random(make: Answer) -> None:
    dice, memory = random.Random(1), Memory(24, 4)
    texts: list[tuple[Any, list[int]]] = [(make(memory.allocator, 4), [])]
    for _ in range(1500):
        text, written = dice.choice(texts)
        what = dice.random()
        if what < 0.75:
            memory.append(text, written)
        elif what < 0.85 and len(texts) < 6:
            texts.append((text.fork(), written[:]))
        elif what > 0.9:
            text.free()
            written.clear()
        tables = [block for other, _ in texts for block in other.block_table]
        for block in set(tables):
            expect.equal(memory.allocator.holders(block), tables.count(block), f"holders({block})")
        expect.that(
            memory.allocator.num_free == 24 - len(set(tables)),
            f"{24 - len(set(tables)) - memory.allocator.num_free} blocks are held, and in no block table",
        )
        for other, tokens in texts:
            memory.check(other, tokens, "a text")
