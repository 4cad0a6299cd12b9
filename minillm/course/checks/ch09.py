"""Chapter 09, prefix caching: its exercises' checks."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch09 import FREE_QUEUE, HASH_CHAIN, LONGEST_MATCH, PUBLISHABLE
from minillm.measure.trace import Kind, ScheduledRequest

ROOT, OTHER_ROOT = bytes(range(32)), bytes(range(32, 64))


def named(extend: Answer, text: Sequence[int], size: int, root: bytes = ROOT) -> list[bytes]:
    """The names of all full blocks of a text, as the learner's function finds them."""
    hashes: list[bytes] = []
    returned = extend(hashes, list(text), size, root)
    if not hashes and isinstance(returned, list) and returned:
        raise Wrong("`hashes` is as it was, and a new list is returned: append to `hashes` in place")
    for i, name in enumerate(hashes):
        if not isinstance(name, bytes):
            raise Wrong(f"hashes[{i}] is a {type(name).__name__}; a sha256(…).digest() of 32 bytes is wanted")
        expect.that(len(name) == 32, f"hashes[{i}] has {len(name)} bytes; a sha256(…).digest() has 32")
    return hashes


@HASH_CHAIN.part("a name for each full block", points=1)
def chain_length(extend: Answer) -> None:
    for length in (10, 8, 3, 4, 0):
        text = list(range(100, 100 + length))
        found, full = len(named(extend, text, 4)), length // 4
        case = f"{length} tokens in blocks of 4 get {found} names"
        if found == full + 1 and length % 4:
            raise Wrong(
                f"{case}: the block with the last {length % 4} is not full, so it has no name yet: its tokens will "
                "still change"
            )
        if found == full - 1 and length % 4 == 0:
            raise Wrong(f"{case}: the last full block is left out. Where does the range end?")
        expect.that(found == full, f"{case}; {full} are right")


@contextmanager
def no_builtin_hash() -> Iterator[None]:
    """Refuse calls of Python's hash() in the `with`."""
    before, called = sys.getprofile(), list[Any]()
    sys.setprofile(lambda frame, event, function: called.append(function) if function is hash else None)
    try:
        yield
    finally:
        sys.setprofile(before)
    expect.that(
        not called,
        "Python's hash() is called: it differs from process to process, and unlike texts may have the same. Give "
        "sha256 the name of the block before and the tokens themselves",
    )


UNLIKE = (
    ([1, 23], [12, 3], "nothing is between the ids, or they have no fixed width"),
    ([1, 2], [257, 258], "an id takes more than one byte: a vocabulary has tens of thousands"),
    ([1, 2], [2, 1], "their order is lost"),
    ([70_001, 5], [70_001 % 65_536, 5], "an id may need more than two bytes"),
    ([0x0201, 3], [1, 0x0302], "each id must take the same number of bytes"),
    ([0x0102, 3], [1, 0x0203], "each id must take the same number of bytes"),
    ([100, 1000], [1001, 0], "an id may have more than three digits"),
    ([10_000, 100_000], [100_001, 0], "an id may have more than five digits"),
    ([31, 0], [0, 1], "a polynomial in 31 is the same for both. Give sha256 the tokens themselves"),
    # Python's hash of these two tuples is the same.
    (
        [11542, 22903, 21667, 74807],
        [23454, 48381, 42916, 0],
        "their hash() is. Give sha256 the tokens themselves",
    ),
)


@HASH_CHAIN.part("the same name means the same prefix", points=2)
def chain_names(extend: Answer) -> None:
    first, second = named(extend, [1, 2, 3, 4] * 2, 4)
    if named(extend, [1, 2, 3, 4], 4, OTHER_ROOT) == [first]:
        raise Wrong("the root makes no difference: it is the parent of the first block")
    if first == second:
        raise Wrong(
            "the same tokens in another place get the same name. Their keys and values depend on all tokens before "
            "them: the name of the block before belongs into the hash"
        )
    with no_builtin_hash():
        named(extend, [1, 2, 3, 4], 2)
    for one, other, why in UNLIKE:
        if named(extend, one, len(one)) == named(extend, other, len(one)):
            raise Wrong(f"the tokens {one} and {other} get the same name: {why}")
    for i in range(32):
        other_parent = bytes(byte ^ (i == j) for j, byte in enumerate(ROOT))
        if named(extend, [1, 2], 2, other_parent) == named(extend, [1, 2], 2):
            raise Wrong(f"byte {i} of the parent's name makes no difference: all 32 belong into the hash")
    names = {named(extend, [7 * token], 1)[0] for token in range(400)}
    expect.that(len(names) == 400, f"400 blocks have {len(names)} names: give sha256 the tokens themselves")
    random = Random(0)
    for _ in range(60):
        size, a, b = random.randint(1, 4), *([random.randint(0, 2) for _ in range(12)] for _ in range(2))
        cut = random.randint(0, 12)
        b[:cut] = a[:cut]
        both = zip(named(extend, a, size), named(extend, b, size), strict=True)
        for i, names_of_both in enumerate(both, start=1):
            alike, same = a[: i * size] == b[: i * size], len(set(names_of_both)) == 1
            expect.that(
                same == alike,
                f"the texts {a} and {b} in blocks of {size}: block {i - 1} has {'one name' if same else 'two names'}, "
                f"though the first {i * size} tokens are {'the same' if alike else 'not the same'}",
            )


@HASH_CHAIN.part("what has a name is not named again", points=2)
def chain_grows(extend: Answer) -> None:
    text = list(range(300, 320))
    whole = named(extend, text, 4)
    grown = whole[:2]
    extend(grown, text, 4, ROOT)
    if len(grown) > len(whole):
        raise Wrong(
            f"2 of 5 blocks have names, and afterwards there are {len(grown)}: the first blocks are named a second time"
        )
    expect.that(grown[:2] == whole[:2], "the names that were there have changed")
    if grown[2:] == named(extend, text[8:], 4):
        raise Wrong(
            "with 2 names there already, the chain begins at the root again: the parent is the last of `hashes`"
        )
    expect.equal(grown, whole, "hashes, when the first 2 were there")
    made_up = [OTHER_ROOT, ROOT]
    extend(made_up, text, 4, ROOT)
    expect.that(made_up[:2] == [OTHER_ROOT, ROOT], "the names that were there have changed")
    if made_up[2:] == whole[2:]:
        raise Wrong(
            "the chain is computed from the first token again: go on from the last name in `hashes`, or a text of "
            "n blocks costs n hashes for each new one"
        )
    by_token: list[bytes] = []
    for length in range(1, len(text) + 1):
        extend(by_token, text[:length], 4, ROOT)
    expect.equal(by_token, whole, "hashes, when the text came token by token")


def right_match(hashes: list[bytes], known: dict[bytes, int], num_tokens: int, block_size: int) -> list[int]:
    found = [known.get(name) for name in hashes[: (num_tokens - 1) // block_size]] + [None]
    return [block for block in found[: found.index(None)] if block is not None]


def up_to_zero(*args: Any) -> list[int]:
    right = right_match(*args)
    return right[: right.index(0)] if 0 in right else right


def by_halving(hashes: list[bytes], known: dict[bytes, int], num_tokens: int, block_size: int) -> list[int]:
    low, high = 0, (num_tokens - 1) // block_size
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if hashes[middle] in known else (low, middle)
    return [known.get(name, 0) for name in hashes[:low]]


ONLY_THE_LAST = "the answer lists all of the prefix's blocks: the request's table needs every one"
ZERO = "a block may have the number 0, which is known: ask `name in known`, or compare with None"
SKIPS = (
    "a block is taken from beyond an unknown one: in the table it would be where other tokens belong, and the request "
    "would read the wrong keys"
)
HALVING = "eviction leaves holes, so the end of the prefix cannot be found by halving"
NOTHING_LEFT = (
    "all of the text is taken, and nothing is left to compute, so there are no logits for the next token. A hit covers "
    "num_tokens - 1 tokens at most"
)
ONE_BLOCK_LESS = (
    "the last full block is never taken. It may be if that block holds no last token: then a token is left to compute "
    "anyway"
)
Texts = list[tuple[list[bytes], dict[bytes, int], int, int]]


def texts(*each: tuple[dict[int, int], int], size: int = 4) -> Texts:
    """Arguments of longest_match: for each text the known blocks, index -> number, and its number of tokens."""
    made = []
    for known, num_tokens in each:
        names = [f"block {i}".encode() for i in range(30)]
        last_first = {names[i]: known[i] for i in sorted(known, reverse=True)}
        made.append((names[: num_tokens // size], last_first, num_tokens, size))
    return made


@LONGEST_MATCH.part("the longest known prefix", points=2)
def match_prefix(match: Answer) -> None:
    cases = texts(({0: 7, 1: 3, 2: 9}, 23), ({}, 23), ({0: 5, 1: 0, 2: 8}, 23))
    mistakes = {ONLY_THE_LAST: lambda *args: right_match(*args)[-1:], ZERO: up_to_zero}
    expect.cases(match, right_match, cases, mistakes=mistakes)


@LONGEST_MATCH.part("no gaps", points=1)
def match_gaps(match: Answer) -> None:
    def skips(hashes: list[bytes], known: dict[bytes, int], num_tokens: int, size: int) -> list[int]:
        return [known[name] for name in hashes[: (num_tokens - 1) // size] if name in known]

    cases = texts(({0: 7, 1: 3, 3: 5}, 25), ({1: 3, 2: 9}, 23), ({0: 1, 1: 2, 3: 4, 5: 6, 6: 7}, 33))
    expect.cases(match, right_match, cases, mistakes={SKIPS: skips, HALVING: by_halving})


@LONGEST_MATCH.part("a token is left to compute", points=2)
def match_cap(match: Answer) -> None:
    every = {i: i + 10 for i in range(6)}
    mistakes = {
        NOTHING_LEFT: lambda hashes, known, n, size: right_match(hashes, known, n + 1, size),
        ONE_BLOCK_LESS: lambda hashes, known, n, size: right_match(hashes[:-1], known, n, size),
    }
    expect.cases(match, right_match, texts((every, 16), (every, 17), (every, 1)), mistakes=mistakes)
    random = Random(0)
    for size in (1, 3, 4, 6):
        each = [
            (
                {i: random.randrange(50) for i in range(6) if random.random() < 0.8},
                random.randint(1, 6 * size + 3),
            )
            for _ in range(50)
        ]
        expect.cases(match, right_match, texts(*each, size=size))


class Pool:
    """The learner's queue with the right one next to it. `known` blocks can be found, `used` ones are in use.

    The right queue is a list of sets: in which order the unknown blocks of one give_back go is left to the learner.
    """

    def __init__(self, make: Answer, num_blocks: int) -> None:
        self.theirs = make(num_blocks)
        self.queue = [{block} for block in range(num_blocks)]
        self.known: set[int] = set()
        self.used: set[int] = set()

    @property
    def free(self) -> list[int]:
        return [block for group in self.queue for block in group]

    def take(self, why: Callable[[int, int], str | None] = lambda got, right: None) -> int:
        """A block, which must be the right one; `why` may know what is wrong with another."""
        got = self.theirs.take()
        expect.something(got, "take()")
        expect.that(hasattr(got, "__index__"), f"take() is {got!r:.60}; the number of a block is wanted")
        if got in self.used:
            raise Wrong(
                f"take() gives block {got}, which is in use: a block that is hit leaves the queue, or its content is "
                "overwritten under the request that reads it"
            )
        free, first = self.free, self.queue[0]
        expect.that(got in free, f"take() gives {got}, and the free blocks are {free}")
        if got not in first:
            unknown, right = [block for block in free if block not in self.known], min(first)
            if got in self.known and unknown:
                raise Wrong(
                    f"take() gives block {got}, which holds a known prefix, while others are free that hold nothing: "
                    f"{unknown}"
                )
            if got in self.known:
                raise Wrong(
                    why(got, right) or f"take() gives block {got}; {right} was used longer ago than it"
                )
            raise Wrong(
                f"take() gives block {got}, and block {right} is first: what no request can find goes before all "
                "others when it is given back"
            )
        first.remove(got)
        self._drop_empty()
        self.known.discard(got)
        self.used.add(got)
        return int(got)

    def revive(self, block: int) -> None:
        for group in self.queue:
            group.discard(block)
        self._drop_empty()
        self.used.add(block)
        self.theirs.revive(block)

    def give_back(self, table: list[int], known: Sequence[int]) -> None:
        self.known |= set(known)
        given, find = list(table), set(self.known)
        self.theirs.give_back(given, find)
        for name, now, before in (("block_table", given, table), ("known", find, self.known)):
            expect.that(
                now == before, f"give_back changes `{name}`, which the caller still needs: work on a copy"
            )
        find.clear()  # which blocks are known will change
        self.used -= set(table)
        self.queue.insert(0, {block for block in table if block not in self.known})
        self.queue += [{block} for block in reversed(table) if block in self.known]
        self._drop_empty()

    def _drop_empty(self) -> None:
        self.queue = [group for group in self.queue if group]


@FREE_QUEUE.part("what no request can find goes first", points=1)
def queue_ends(make: Answer) -> None:
    pool = Pool(make, 4)
    for _ in range(3):
        pool.take()
    pool.give_back([1, 0, 2], known=[1, 0])  # 2 is not known, and 3 still holds nothing
    pool.take()
    pool.give_back([2], known=[])
    for _ in range(2):
        pool.take()


@FREE_QUEUE.part("the tail goes before the head", points=1)
def queue_tails(make: Answer) -> None:
    pool = Pool(make, 4)
    for _ in range(4):
        pool.take()
    pool.give_back([3, 1, 0, 2], known=[3, 1, 0])

    def why(got: int, right: int) -> str | None:
        return (
            f"a text lies in blocks 3, 1, 0, and {got} goes next, not {right}: the head of a text is given away before "
            "its tail. A tail without its head cannot be found"
            if got == 3
            else None
        )

    for _ in range(4):
        pool.take(why)


@FREE_QUEUE.part("the least recently used goes first", points=1)
def queue_order(make: Answer) -> None:
    pool = Pool(make, 5)
    for _ in range(5):
        pool.take()
    pool.give_back([3, 4], known=[3, 4])
    pool.give_back([0, 1], known=[0, 1])

    def why(got: int, right: int) -> str | None:
        return {
            1: f"blocks 3 and 4 are given back, later 0 and 1, and {got} goes next: the most recently used, which is "
            "the likeliest to be asked for again",
            0: f"blocks 3 and 4 are given back, later 0 and 1, and {got} goes next, not {right}: the blocks go by "
            "their numbers, which say nothing about their use",
        }.get(got)

    for _ in range(4):
        pool.take(why)


@FREE_QUEUE.part("a hit leaves the queue, and is a use", points=2)
def queue_hits(make: Answer) -> None:
    pool = Pool(make, 3)
    for _ in range(3):
        pool.take()
    pool.give_back([0, 1, 2], known=[0, 1, 2])
    pool.revive(2)
    pool.take()
    pool.take()
    pool.give_back([1], known=[1])
    pool.take()

    pool = Pool(make, 4)
    for _ in range(4):
        pool.take()
    pool.give_back([0, 1], known=[0, 1])
    pool.give_back([2, 3], known=[2, 3])
    for block in (0, 1):
        pool.revive(block)
    pool.give_back([0, 1], known=[0, 1])
    for _ in range(4):
        pool.take(
            lambda got, right: (
                f"blocks 0 and 1 are hit after 2 and 3 were given back, and {got} still goes before {right}: what "
                "counts is when a block was used last, not when it was filled"
            )
        )


@FREE_QUEUE.part("any schedule, of two queues", points=1)
def queue_random(make: Answer) -> None:
    random = Random(0)
    for _ in range(20):
        queues = [(Pool(make, 12), list[list[int]]()), (Pool(make, 7), list[list[int]]())]
        for _ in range(100):
            pool, tables = random.choice(queues)
            free, move = pool.free, random.random()
            if free and move < 0.5:
                hits = [b for b in free if b in pool.known and random.random() < 0.3]
                for block in hits:
                    pool.revive(block)
                fresh = random.randint(0, min(3, len(pool.free)))
                if table := hits + [pool.take() for _ in range(fresh)]:
                    tables.append(table)
            elif tables:
                table = tables.pop(random.randrange(len(tables)))
                pool.give_back(table, known=table[: random.randint(0, len(table))])


def part(
    before: int, num_tokens: int, blocks: list[int], kind: Kind = "prefill", name: str = "0", hits: int = 0
) -> ScheduledRequest:
    return ScheduledRequest(name, kind, before, num_tokens, hits, blocks)


def ends(part: ScheduledRequest, rejected: dict[str, int]) -> tuple[int, int]:
    """How many tokens are in the cache for certain before the step, and after it."""
    before = part.num_computed_tokens
    return before, before + part.num_tokens - rejected.get(part.request_id, 0)


def blocks_of(part: ScheduledRequest, rejected: dict[str, int], size: int) -> list[int]:
    before, after = ends(part, rejected)
    return part.blocks[before // size : after // size]


def mistakes_in(
    scheduled: list[ScheduledRequest], rejected: dict[str, int], size: int
) -> dict[str, list[int]]:
    """Return what each mistake gives."""

    def blocks(first: Callable[[int, int], int], last: Callable[[int, int], int]) -> list[int]:
        """The entries from `first` to `last` of each table, both functions of the tokens before and after the step."""
        return [b for p in scheduled for b in p.blocks[first(*ends(p, rejected)) : last(*ends(p, rejected))]]

    decodes = {
        "a decode fills blocks too: the next turn of a chat begins with the answer": [
            b for p in scheduled if p.kind == "prefill" for b in blocks_of(p, rejected, size)
        ]
    }
    return ({} if rejected else decodes) | {
        "a request with drafts that were turned down publishes nothing: the tokens before those stay": [
            b for p in scheduled if p.request_id not in rejected for b in blocks_of(p, rejected, size)
        ],
        "drafts are counted that the model turned down: the block will hold other tokens": [
            b for p in scheduled for b in blocks_of(p, {}, size)
        ],
        "the newest token is counted: it was sampled from this step's logits, and its key and value are computed in "
        "the next one": blocks(lambda b, a: b // size, lambda b, a: (a + 1) // size),
        "a block is published that the table has for tokens to come: nothing has been written to it": blocks(
            lambda b, a: b // size, lambda b, a: 99
        ),
        "the last block is not full: a request that finds it would read places that were never written": blocks(
            lambda b, a: b // size, lambda b, a: -(-a // size)
        ),
        "these are the blocks that were complete when the step began, so all come a step too late": blocks(
            lambda b, a: 0, lambda b, a: b // size
        ),
        "a block is left out that was completed with the tokens of two steps: what counts is that it is full": blocks(
            lambda b, a: -(-b // size), lambda b, a: a // size
        ),
        "a block is published that was complete before this step: it came from the cache, and others share it"
        if any(p.num_cached_tokens for p in scheduled)
        else "a block of an earlier chunk is published again": blocks(lambda b, a: 0, lambda b, a: a // size),
    }


def check_published(
    publishable: Answer, scheduled: list[ScheduledRequest], rejected: dict[str, int], size: int = 16
) -> None:
    """Refuse what is not right, in the terms of one who made the mistake."""
    found = publishable(scheduled, rejected, size)
    right = [block for p in scheduled for block in blocks_of(p, rejected, size)]
    step = "; ".join(
        f"{p.num_computed_tokens} tokens computed, {p.num_tokens} in this step"
        + f", {rejected.get(p.request_id)} of them turned down" * (p.request_id in rejected)
        + f", blocks {p.blocks}"
        for p in scheduled
    )
    if len(scheduled) > 1 and found == blocks_of(scheduled[0], rejected, size) != right:
        raise Wrong(
            f"the blocks of the second request are missing: is the `return` inside the loop? ({step})"
        )
    for message, mistaken in mistakes_in(scheduled, rejected, size).items():
        if mistaken and mistaken != right and found == mistaken:
            raise Wrong(f"{message} ({step})")
    expect.equal(found, right, f"what is published in blocks of {size} ({step})")


@PUBLISHABLE.part("the full blocks of a prompt", points=1)
def publish_prompt(publishable: Answer) -> None:
    check_published(
        publishable, [part(40, 10, [5, 6, 1, 8], hits=32), part(0, 40, [7, 3, 9, 2], name="1")], {}
    )
    check_published(publishable, [part(0, 40, [7, 3, 9, 2])], {})
    check_published(publishable, [part(0, 32, [4, 1])], {})


@PUBLISHABLE.part("each block once, when it is completed", points=1)
def publish_chunks(publishable: Answer) -> None:
    check_published(publishable, [part(32, 20, [5, 0, 8, 6], hits=32)], {})
    check_published(publishable, [part(24, 40, [9, 4, 2, 7, 1])], {})


@PUBLISHABLE.part("a decode, and the newest token", points=1)
def publish_decode(publishable: Answer) -> None:
    check_published(publishable, [part(31, 1, [6, 3], "decode"), part(0, 20, [8, 1], name="1")], {})
    check_published(publishable, [part(30, 1, [6, 3], "decode")], {})
    check_published(publishable, [part(0, 31, [6, 3])], {})
    check_published(publishable, [part(0, 15, [4])], {})


@PUBLISHABLE.part("drafts that were turned down", points=1)
def publish_drafts(publishable: Answer) -> None:
    prompt = part(0, 20, [6, 7], name="1")  # nothing of it is turned down
    check_published(publishable, [part(30, 5, [2, 8, 5], "decode"), prompt], {"0": 3})
    check_published(publishable, [part(29, 5, [2, 8, 5], "decode"), prompt], {"0": 4})
    check_published(publishable, [part(28, 5, [2, 8, 5], "decode", "a"), prompt], {"0": 3})


@PUBLISHABLE.part("whole lives, side by side, in blocks of any size", points=2)
def publish_lives(publishable: Answer) -> None:
    check_published(
        publishable,
        [part(0, 33, [1, 2, 3]), part(15, 1, [4], "decode", "1"), part(3, 40, [5, 6, 7], name="2")],
        {},
    )
    random = Random(0)
    for size in (16, 3, 5, 1, 16, 12):
        tables = {str(r): random.sample(range(r * 100, r * 100 + 100), -(-96 // size)) for r in range(3)}
        done, published = dict.fromkeys(tables, 0), list[Any]()
        while min(done.values()) < 80:
            alive = [r for r in tables if done[r] < 80]
            wants = {r: random.randint(1, min(24, 96 - done[r])) for r in alive}
            rejected = {r: random.randint(0, wants[r] - 1) for r in alive if random.random() < 0.5}
            scheduled = [part(done[r], wants[r], tables[r], name=r) for r in alive]
            check_published(publishable, scheduled, rejected, size)
            published += [block for p in scheduled for block in blocks_of(p, rejected, size)]
            done = {r: done[r] + (wants[r] - rejected.get(r, 0) if r in wants else 0) for r in done}
        right = sorted(b for r, table in tables.items() for b in table[: done[r] // size])
        expect.equal(sorted(published), right, "all that was ever published")
