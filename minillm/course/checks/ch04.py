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

RULES = {  # what a call means for the holders of its block, and for num_free
    "allocate": ("an allocated block is held by one", "a block that stays in the queue is lent twice"),
    "share": ("share() adds a holder", "num_free counts blocks, not holders"),
    "revive": ("it was free", "a free block that is shared is held from now on, so it must leave the queue"),
    "free": ("a block is free after its last holder",) * 2,
    "refuse": ("a free() that is refused changes nothing",) * 2,
}


class Twin:
    """The learner's allocator with a plain model of the right one, which is called with it."""

    def __init__(self, make: Answer, num_blocks: int) -> None:
        self.theirs = make(num_blocks)
        self.holders, self.queue = [0] * num_blocks, list(range(num_blocks))
        self.place = dict.fromkeys(range(num_blocks), "new")  # how each block came to its place in the queue
        self.history = [f"Allocator({num_blocks})"]
        if callable(self.theirs.num_free):
            raise Wrong(
                "num_free is a method; it is a property: put `@property` above it. It is read without brackets"
            )
        expect.equal(self.theirs.num_free, num_blocks, f"Allocator({num_blocks}).num_free")

    def allocate(self) -> int | None:
        """The block that both give."""
        self.history.append("allocate()")
        try:
            got = self.theirs.allocate()
        except (IndexError, KeyError, StopIteration) as error:
            raise Wrong(
                f"allocate() raises {type(error).__name__} with {len(self.queue)} blocks free; without a free block "
                "it returns None, and the scheduler makes room"
            ) from None
        if not self.queue:
            expect.that(got is None, f"allocate() without a free block gives {got!r}; None is wanted")
            return None
        if not hasattr(got, "__index__"):
            raise Wrong(f"allocate() gives {got!r} while {len(self.queue)} blocks are free")
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
        """Free a free block."""
        self.history.append(f"free({block})")
        try:
            self.theirs.free(block)
        except ValueError:
            self.compare("refuse")
            return
        raise Wrong(
            "free() of a free block must raise ValueError: unseen, two requests would be given the same block later"
        )

    def compare(self, what: str) -> None:
        after = f"after {', '.join(self.history[-4:])}"
        for block, holders in enumerate(self.holders):
            got = self.theirs.holders(block)
            expect.that(
                got == holders, f"holders({block}) is {got} {after}; right is {holders}: {RULES[what][0]}"
            )
        got, right = self.theirs.num_free, len(self.queue)
        expect.that(got == right, f"num_free is {got} {after}; right is {right}: {RULES[what][1]}")

    def _check_front(self, got: int) -> None:
        """Refuse a block that is not at the front. In which order new blocks are given is left to the learner."""
        last = len(self.holders) - 1
        expect.that(
            0 <= got <= last, f"allocate() gives block {got}: the blocks are numbered from 0 to {last}"
        )
        if got not in self.queue:
            raise Wrong(
                f"block {got} is lent twice: allocate(), and share() of a free block, take it out of the queue"
            )
        places = self.place[self.queue[0]], self.place[got]
        why = {
            ("front", "front"): "the block that was freed last is given first",
            ("back", "back"): "of two blocks that are kept, the one that was freed first is given first",
            ("new", "back"): "a block that is freed with keep=True goes to the back of the queue",
        }.get(places, "a freed block goes to the front of the queue, as nothing will ask for its content")
        if got != self.queue[0] and places != ("new", "new"):
            calls = ", ".join(self.history[-7:])
            raise Wrong(
                f"allocate() gives block {got}; block {self.queue[0]} is next: {why} (the last calls: {calls})"
            )


@ALLOCATOR.part("each block is lent once", points=1)
def allocator_lends(make: Answer) -> None:
    one, other = Twin(make, 5), Twin(make, 3)  # two allocators know nothing of each other
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
    """The mapping by which position p of a request with c cached tokens lies in slot(table, p, c, block_size)."""

    def mapping(tables: list[list[int]], computed: list[int], new: list[int], size: int) -> Tensor:
        rows = zip(tables, computed, new, strict=True)
        return torch.tensor([slot(t, p, c, size) for t, c, n in rows for p in range(c, c + n)])

    return mapping


def slot_of(table: list[int], position: int, size: int) -> int:
    return table[position // size] * size + position % size


right_slots = slots_by(lambda table, p, c, size: slot_of(table, p, size))
SLOT_MISTAKES = {
    "the new tokens are placed from position 0 on: they come after what is cached, from num_computed on": slots_by(
        lambda table, p, c, size: slot_of(table, p - c, size)
    ),
    "the new tokens are placed one too far: num_computed tokens are cached, at positions 0 … num_computed - 1": (
        slots_by(lambda table, p, c, size: slot_of([*table, 0], p + 1, size))
    ),
    "the request's tokens are laid out in one piece from its first block on: the next block may lie anywhere": (
        slots_by(lambda table, p, c, size: table[0] * size + p)
    ),
    "a block's number is taken for a slot: block b begins at slot b · block_size, as it has block_size slots": (
        slots_by(lambda table, p, c, size: table[p // size] + p % size)
    ),
    "the block table is not used: a position in the text says nothing about where its block lies": slots_by(
        lambda table, p, c, size: p
    ),
    "every token gets the first slot of its block, and overwrites the one before": slots_by(
        lambda table, p, c, size: table[p // size] * size
    ),
    "the place in the block is counted from the start of the step; it is the position modulo block_size": slots_by(
        lambda table, p, c, size: table[p // size] * size + (p - c) % size
    ),
    "all tokens go through the first request's table: each request has its own block table": (
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
    """A request in a pool whose other slots hold ordinary numbers, so that each mistake has its own result."""
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
    """A paged_attention that gathers these blocks, both functions of the table, and attends to so many tokens."""

    def attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, table: Tensor, seq_len: int) -> Tensor:
        k = flat(k_cache[k_blocks(table)])[: tokens(seq_len)]
        return over(q, k, flat(v_cache[(v_blocks or k_blocks)(table)])[: tokens(seq_len)])

    return attention


right_attention = attention_over(table_itself)
ATTENTION_MISTAKES = {
    "the blocks are read as if they followed the first one in memory: each is looked up in the table": (
        attention_over(lambda table: torch.arange(int(table[0]), NUM_BLOCKS))
    ),
    "the pool is read from its beginning, the table is not used": attention_over(whole_pool),
    "slots beyond seq_len are attended to: the last block belongs to the request only so far": attention_over(
        table_itself, tokens=lambda seq_len: -(-seq_len // BLOCK) * BLOCK
    ),
    "the blocks are read as they lie in memory: the text is in the order of the table": attention_over(
        lambda table: table.sort().values
    ),
    "the last, half-full block is left out: seq_len tokens take ceil(seq_len / block_size) blocks": attention_over(
        table_itself, tokens=lambda seq_len: seq_len // BLOCK * BLOCK
    ),
    "the keys are gathered through the table, the values are not": attention_over(table_itself, whole_pool),
    "the values are gathered through the table, the keys are not": attention_over(whole_pool, table_itself),
    "the gathered blocks are flattened place by place, all first tokens before all second ones: keep each block "
    "together": attention_over(table_itself, flat=lambda blocks: blocks.transpose(0, 1).flatten(0, 1)),
    "the first query is put at the first key, as torch's is_causal does: the last query belongs to the last key": (
        attention_over(table_itself, over=lambda q, k, v: causal(q, k[: len(q)], v[: len(q)]))
    ),
}
SEES_ALL = {
    "a query of the chunk sees the tokens after its own: mask them": attention_over(
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
                f"with seq_len = {seq_len} the result changes when every slot that is not the request's holds {junk}: "
                "one of them is read. A mask cannot help, as 0 · NaN is NaN: cut the keys and values to seq_len before "
                "attention",
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
    # The request's own keys and values are 0.9 MB; copies for each query head are forgiven.
    if added > k_cache.nbytes // 2:
        raise Wrong(
            f"the whole pool is copied: the call needs more than half the memory of K, {k_cache.nbytes / 1e6:.0f} MB, "
            f"for a request of {len(table)} blocks. Pick the request's blocks first"
        )


# --- 04.4 Sequence ---


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
        self.allocator, self.size, self.num_blocks = Watched(num_blocks), size, num_blocks
        self.slots = [-1] * num_blocks * size
        self.next = 0

    def append(self, text: Any, written: list[int]) -> bool:
        """Write one more token as an engine would: the copy first. False if a block is needed and none is free."""
        before = self._state(text)
        result = text.append()
        if result is None:
            expect.that(
                self._state(text) == before,
                "append() has returned None, so nothing may have changed: the block table, the counts, num_tokens. Ask "
                "for the new block before you let go of the old one",
            )
            free = self.allocator.num_free
            expect.that(free == 0, f"append() returns None while {free} blocks are free")
            return False
        if not (isinstance(result, tuple) and len(result) == 2):
            raise Wrong(f"append() returns {result!r:.60}; (slot, copy) is wanted")
        slot, copy = result
        if not hasattr(slot, "__index__") or not 0 <= slot < len(self.slots):
            raise Wrong(f"append() gives slot {slot!r}; the memory has slots 0 to {len(self.slots) - 1}")
        if copy is not None:
            self._copy(copy, dict(before[0]), before[1] // self.size, slot // self.size)
        holders = self.allocator.holders(slot // self.size)
        expect.that(
            holders <= 1,
            f"append() gives a slot in block {slot // self.size}, which {holders} sequences hold: what another one "
            "reads is overwritten. Copy a shared block, and write into the copy",
        )
        self.slots[slot] = self.next
        written.append(self.next)
        self.next += 1
        return True

    def _state(self, text: Any) -> tuple[list[tuple[int, int]], int]:
        """The blocks of a text with their holders, and its number of tokens."""
        return [(block, self.allocator.holders(block)) for block in text.block_table], text.num_tokens

    def _copy(self, copy: Any, holders: dict[int, int], number: int, written: int) -> None:
        """Copy a shared block, which must be block `number` of the table before, into the one that is written."""
        if not (isinstance(copy, tuple) and len(copy) == 2):
            raise Wrong(f"the copy is {copy!r:.60}; a pair (from, to) of blocks is wanted, or None")
        source, target = copy
        old = [*holders, None][number]
        if target == old != source:
            raise Wrong(
                "the copy is the wrong way round: the pair is (from, to), from the shared block to the new one"
            )
        if holders.get(source) == 1:
            raise Wrong(
                f"block {source} is copied, but no other sequence holds it: a sequence writes into its own block"
            )
        if source != old:
            raise Wrong(f"block {source} is copied, but the next token does not go into it")
        if written == source:
            raise Wrong(
                f"the slot is in block {source}, the old one: after the copy the token goes into block {target}"
            )
        size = self.size
        self.slots[target * size : (target + 1) * size] = self.slots[source * size : (source + 1) * size]

    def check(self, text: Any, written: list[int], which: str) -> None:
        """`text` reads what was written to it."""
        expect.that(
            text.num_tokens == len(written),
            f"{which} has num_tokens = {text.num_tokens} after {len(written)} tokens: a fork has the same tokens, and "
            "each append adds one",
        )
        needed = -(-len(written) // self.size)
        expect.that(
            len(text.block_table) == needed,
            f"{which} holds {len(text.block_table)} blocks for {len(written)} tokens; {needed} of {self.size} are "
            "needed",
        )
        read = [self.slots[slot_of(text.block_table, p, self.size)] for p in range(len(written))]
        if read != written:
            place = next(p for p, token in enumerate(read) if token != written[p])
            raise Wrong(
                f"token {place} of {which} is not copied: what the shared block held must be in the new one too"
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
    expect.that(lent == 3, f"9 tokens in blocks of 4 take 3 blocks, not {lent}")
    for _ in range(2):  # a sequence that is empty has nothing to give back
        text.free()
        free = memory.allocator.num_free
        expect.that(free == 6, f"free() gives back {free - 3} of 3 blocks")
        expect.that(
            not text.block_table and text.num_tokens == 0,
            "after free() the sequence must be empty: its blocks will belong to other sequences",
        )


@SEQUENCE.part("a fork shares everything and takes nothing", points=1)
def sequence_fork(make: Answer) -> None:
    memory = Memory(8, 4)
    text, written = some_text(memory, make, 6)
    child = text.fork()
    expect.something(child, "what fork() returns")
    expect.that(
        memory.allocator.lent == 2,
        "fork() takes no new block: the two share all blocks until one of them writes",
    )
    expect.that(
        child.block_table is not text.block_table or isinstance(child.block_table, tuple),
        "the child's block_table is the same list as the parent's: what one appends, both have. Copy the list",
    )
    expect.equal(list(child.block_table), list(text.block_table), "the child's block_table")
    expect.that(
        all(memory.allocator.holders(block) == 2 for block in text.block_table),
        "after fork() the allocator knows of one holder still: call allocator.share(block) for each block, or the "
        "first sequence that is freed takes the other's memory away",
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
            f"three texts of {before + appended} tokens that share {before} use {used} blocks of {size}; {blocks} are "
            "enough",
        )
        leaked = 12 - used - memory.allocator.num_free
        expect.that(
            leaked == 0, f"{leaked} blocks leaked: a sequence that goes on with a copy frees the original"
        )


@SEQUENCE.part("without a free block nothing changes", points=1)
def sequence_full(make: Answer) -> None:
    memory = Memory(2, 4)
    text, written = some_text(memory, make, 6)
    child, tokens = text.fork(), written[:]
    expect.that(
        not memory.append(child, tokens) and not memory.append(text, written),
        "append() must return None if a shared block would have to be copied and none is free",
    )
    text.free()
    for _ in range(2):
        expect.that(
            memory.append(child, tokens),
            "append() returns None though the block is the sequence's own by now",
        )
    expect.that(not memory.append(child, tokens), "append() must return None if no block is free for token 8")
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
            expect.that(lost == 0, f"{lost} blocks are held, and in no block table")
            if call % 10 == 0:
                for block in set(tables):
                    expect.equal(memory.allocator.holders(block), tables.count(block), f"holders({block})")
                for other, tokens in texts:
                    memory.check(other, tokens, "a text")
