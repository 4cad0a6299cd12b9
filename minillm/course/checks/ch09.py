"""Chapter 09, prefix caching: its exercises' checks."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
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
    unlike = (
        ([1, 23], [12, 3], "nothing stands between the ids, or they have no fixed width"),
        ([1, 2], [257, 258], "an id takes more than one byte: a vocabulary has tens of thousands"),
        ([1, 2], [2, 1], "their order is lost"),
        ([70_001, 5], [70_001 % 65_536, 5], "an id may need more than two bytes"),
    )
    for one, other, why in unlike:
        if named(extend, one, 2) == named(extend, other, 2):
            raise Wrong(f"the tokens {one} and {other} get the same name: {why}")
    random = Random(0)
    for _ in range(100):
        size, a, b = random.randint(1, 4), *([random.randint(0, 2) for _ in range(12)] for _ in range(2))
        cut = random.randint(0, 12)
        b[:cut] = a[:cut]
        both = zip(named(extend, a, size), named(extend, b, size), strict=True)
        for i, names in enumerate(both, start=1):
            alike, same = a[: i * size] == b[: i * size], names[0] == names[1]
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


NAMES = [f"block {i}".encode() for i in range(6)]


def matched(match: Answer, known: dict[int, int], num_tokens: int) -> list[int]:
    """What is found of a text with blocks of 4, of which these are known: index -> block number."""
    names = NAMES[: num_tokens // 4]
    found = match(names, {NAMES[i]: block for i, block in known.items()}, num_tokens, 4)
    expect.something(found)
    expect.that(
        isinstance(found, list), f"the result is a {type(found).__name__} ({found!r:.60}); a list is wanted"
    )
    return list(found)


@LONGEST_MATCH.part("the longest known prefix", points=2)
def match_prefix(match: Answer) -> None:
    found = matched(match, {0: 7, 1: 3, 2: 9}, 23)
    if found in ([9], [2]):
        raise Wrong("the answer lists all of the prefix's blocks: the request's table needs every one")
    expect.equal(found, [7, 3, 9], "the match of 3 known blocks of 5")
    expect.equal(matched(match, {}, 23), [], "the match where nothing is known")
    if matched(match, {0: 5, 1: 0, 2: 8}, 23) == [5]:
        raise Wrong(
            "a block may have the number 0, which is known: ask `name in known`, or compare with None"
        )
    expect.equal(matched(match, {0: 5, 1: 0, 2: 8}, 23), [5, 0, 8], "the match through block number 0")


@LONGEST_MATCH.part("no gaps", points=1)
def match_gaps(match: Answer) -> None:
    known = {0: 7, 1: 3, 3: 5}
    found = matched(match, known, 25)
    if found == [7, 3, 5]:
        raise Wrong(
            "block 5 is taken from beyond an unknown one: in the table it would stand where other tokens belong, and "
            "the request would read the wrong keys"
        )
    if len(found) > 2:
        raise Wrong(
            f"known are blocks 0, 1 and 3 of the text, and the match has {len(found)} entries. Eviction leaves holes, "
            "so the end of the prefix cannot be found by halving"
        )
    expect.equal(found, [7, 3], "the match with a hole after 2 blocks")
    expect.equal(matched(match, {1: 3, 2: 9}, 23), [], "the match where the first block is unknown")


@LONGEST_MATCH.part("a token is left to compute", points=2)
def match_cap(match: Answer) -> None:
    known = {i: i + 10 for i in range(6)}
    if len(found := matched(match, known, 16)) == 4:
        raise Wrong(
            "16 tokens in 4 blocks, all known and all taken: nothing is left to compute, so there are no logits for "
            "the next token. A hit covers num_tokens - 1 tokens at most"
        )
    expect.equal(found, [10, 11, 12], "the match of 16 tokens, all known")
    if len(found := matched(match, known, 17)) == 3:
        raise Wrong(
            "17 tokens: the fourth block is full and known, and that block holds no last token: token 17 is left to "
            "compute anyway, so the block may be taken"
        )
    expect.equal(found, [10, 11, 12, 13], "the match of 17 tokens, the first 16 known")
    random = Random(0)
    for _ in range(200):
        known = {i: random.randrange(50) for i in range(6) if random.random() < 0.8}
        num_tokens = random.randint(1, 27)
        end = next((i for i in range(6) if i not in known), 6)
        right = [known[i] for i in range(min(end, (num_tokens - 1) // 4))]
        case = f"the match of {num_tokens} tokens in blocks of 4, of which {sorted(known)} are known,"
        expect.equal(matched(match, known, num_tokens), right, case)


class Pool:
    """The learner's queue with the right one beside it. `known` blocks can be found, `used` ones are in use."""

    def __init__(self, make: Answer, num_blocks: int) -> None:
        self.theirs = make(num_blocks)
        self.ours = OrderedDict.fromkeys(range(num_blocks))
        self.known: set[int] = set()
        self.used: set[int] = set()

    def take(self, why: Callable[[int, int], str | None] = lambda got, right: None) -> int:
        """A block, which must be the right one; `why` may know what is wrong with another."""
        got, right = self.theirs.take(), next(iter(self.ours))
        expect.something(got, "take()")
        expect.that(type(got) is int, f"take() is {got!r:.60}; the number of a block is wanted")
        if got in self.used:
            raise Wrong(
                f"take() gives block {got}, which is in use: a block that is hit leaves the queue, or its content is "
                "overwritten under the request that reads it"
            )
        free = list(self.ours)
        expect.that(got in self.ours, f"take() gives {got}, and the free blocks are {free}")
        unknown = [block for block in free if block not in self.known]
        if got in self.known and unknown:
            raise Wrong(
                f"take() gives block {got}, which holds a known prefix, while others stand free that hold nothing: "
                f"{unknown}"
            )
        if got in self.known and got != right:
            raise Wrong(why(got, right) or f"take() gives block {got}; {right} was used longer ago than it")
        del self.ours[got]
        self.known.discard(got)
        self.used.add(got)
        return int(got)

    def revive(self, block: int) -> None:
        del self.ours[block]
        self.used.add(block)
        self.theirs.revive(block)

    def give_back(self, table: list[int], known: Sequence[int]) -> None:
        self.known |= set(known)
        given, find = list(table), {block for block in table if block in self.known}
        self.theirs.give_back(given, find)
        expect.that(
            given == table, "give_back changes `block_table`, which the caller still needs: use reversed()"
        )
        for block in reversed(table):
            self.used.remove(block)
            self.ours[block] = None
            self.ours.move_to_end(block, last=block in self.known)


@FREE_QUEUE.part("what nobody can find goes first", points=1)
def queue_ends(make: Answer) -> None:
    pool = Pool(make, 4)
    first = [pool.theirs.take() for _ in range(3)]
    expect.equal(first, [0, 1, 2], "the first three blocks of a new queue")
    pool = Pool(make, 4)
    for _ in range(3):
        pool.take()
    pool.give_back([1, 0, 2], known=[1, 0])
    if (got := pool.take()) != 2:
        raise Wrong(
            f"blocks 1, 0 and 2 are given back, of which 2 is not known, and block {got} goes next. Block 2, whose "
            "content nobody can find, goes before all others: then the rest live longer"
        )


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


@FREE_QUEUE.part("any schedule", points=1)
def queue_random(make: Answer) -> None:
    random = Random(0)
    for _ in range(30):
        pool, tables = Pool(make, 12), []
        for _ in range(60):
            free, move = list(pool.ours), random.random()
            if free and move < 0.5:
                hits = [b for b in free if b in pool.known and random.random() < 0.3]
                for block in hits:
                    pool.revive(block)
                fresh = random.randint(0, min(3, len(pool.ours)))
                if table := hits + [pool.take() for _ in range(fresh)]:
                    tables.append(table)
            elif tables:
                table = tables.pop(random.randrange(len(tables)))
                pool.give_back(table, known=table[: random.randint(0, len(table))])


SIZE = 16


def part(
    before: int, num_tokens: int, blocks: list[int], kind: Kind = "prefill", name: str = "0", hits: int = 0
) -> ScheduledRequest:
    return ScheduledRequest(name, kind, before, num_tokens, hits, blocks)


def ends(part: ScheduledRequest, rejected: dict[str, int]) -> tuple[int, int]:
    """How many tokens are in the cache for certain before the step, and after it."""
    before = part.num_computed_tokens
    return before, before + part.num_tokens - rejected.get(part.request_id, 0)


def blocks_of(part: ScheduledRequest, rejected: dict[str, int]) -> list[int]:
    before, after = ends(part, rejected)
    return part.blocks[before // SIZE : after // SIZE]


def mistakes_in(scheduled: list[ScheduledRequest], rejected: dict[str, int]) -> dict[str, list[int]]:
    """What each mistake gives."""

    def blocks(first: Callable[[int, int], int], last: Callable[[int, int], int]) -> list[int]:
        """The entries from `first` to `last` of each table, both functions of the tokens before and after the step."""
        return [b for p in scheduled for b in p.blocks[first(*ends(p, rejected)) : last(*ends(p, rejected))]]

    return {
        "a decode fills blocks too: the next turn of a chat begins with the answer": [
            b for p in scheduled if p.kind == "prefill" for b in blocks_of(p, rejected)
        ],
        "drafts are counted that the model turned down: the block will hold other tokens": [
            b for p in scheduled for b in blocks_of(p, {})
        ],
        "the newest token is counted: it was sampled from this step's logits, and its key and value are computed in "
        "the next one": blocks(lambda b, a: b // SIZE, lambda b, a: (a + 1) // SIZE),
        "a block is published that the table has for tokens to come: nothing has been written to it": blocks(
            lambda b, a: b // SIZE, lambda b, a: 99
        ),
        "the last block is not full: who finds it would read places that were never written": blocks(
            lambda b, a: b // SIZE, lambda b, a: -(-a // SIZE)
        ),
        "these are the blocks that were complete when the step began, so all come a step too late": blocks(
            lambda b, a: 0, lambda b, a: b // SIZE
        ),
        "a block is left out that was completed with the tokens of two steps: what counts is that it is full": blocks(
            lambda b, a: -(-b // SIZE), lambda b, a: a // SIZE
        ),
        "a block is published that was complete before this step: it came from the cache, and others share it"
        if any(p.num_cached_tokens for p in scheduled)
        else "a block of an earlier chunk is published again": blocks(lambda b, a: 0, lambda b, a: a // SIZE),
    }


def check_published(publishable: Answer, scheduled: list[ScheduledRequest], rejected: dict[str, int]) -> None:
    """Refuse what is not right, in the terms of one who made the mistake."""
    found = publishable(scheduled, rejected, SIZE)
    right = [block for p in scheduled for block in blocks_of(p, rejected)]
    step = "; ".join(
        f"{p.num_computed_tokens} tokens computed, {p.num_tokens} in this step"
        + f", {rejected.get(p.request_id)} of them turned down" * (p.request_id in rejected)
        + f", blocks {p.blocks}"
        for p in scheduled
    )
    if len(scheduled) > 1 and found == blocks_of(scheduled[0], rejected) != right:
        raise Wrong(
            f"the blocks of the second request are missing: is the `return` inside the loop? ({step})"
        )
    for message, mistaken in mistakes_in(scheduled, rejected).items():
        if mistaken != right and found == mistaken:
            raise Wrong(f"{message} ({step})")
    expect.equal(found, right, f"what is published in blocks of {SIZE} ({step})")


@PUBLISHABLE.part("the full blocks of a prompt", points=1)
def publish_prompt(publishable: Answer) -> None:
    check_published(publishable, [part(0, 40, [7, 3, 9, 2])], {})
    check_published(publishable, [part(0, 32, [4, 1])], {})


@PUBLISHABLE.part("each block once, when it is completed", points=1)
def publish_chunks(publishable: Answer) -> None:
    check_published(publishable, [part(32, 20, [5, 0, 8, 6], hits=32)], {})
    check_published(publishable, [part(24, 40, [9, 4, 2, 7, 1])], {})


@PUBLISHABLE.part("a decode, and the newest token", points=1)
def publish_decode(publishable: Answer) -> None:
    check_published(publishable, [part(31, 1, [6, 3], "decode")], {})
    check_published(publishable, [part(30, 1, [6, 3], "decode")], {})
    check_published(publishable, [part(0, 31, [6, 3])], {})
    check_published(publishable, [part(0, 15, [4])], {})


@PUBLISHABLE.part("drafts that were turned down", points=1)
def publish_drafts(publishable: Answer) -> None:
    check_published(publishable, [part(29, 5, [2, 8, 5], "decode")], {"0": 4})
    check_published(publishable, [part(30, 5, [2, 8, 5], "decode")], {"0": 3})
    check_published(publishable, [part(28, 5, [2, 8, 5], "decode", "a")], {"0": 3})


@PUBLISHABLE.part("whole lives, side by side", points=2)
def publish_lives(publishable: Answer) -> None:
    check_published(
        publishable,
        [part(0, 33, [1, 2, 3]), part(15, 1, [4], "decode", "1"), part(3, 40, [5, 6, 7], name="2")],
        {},
    )
    random = Random(0)
    for _ in range(20):
        tables = {str(r): random.sample(range(r * 10, r * 10 + 10), 6) for r in range(3)}
        done, published = dict.fromkeys(tables, 0), list[Any]()
        while min(done.values()) < 80:
            alive = [r for r in tables if done[r] < 80]
            wants = {r: random.randint(1, min(24, 96 - done[r])) for r in alive}
            rejected = {r: random.randint(0, wants[r] - 1) for r in alive if random.random() < 0.5}
            scheduled = [part(done[r], wants[r], tables[r], name=r) for r in alive]
            check_published(publishable, scheduled, rejected)
            published += publishable(scheduled, rejected, SIZE)
            done = {r: done[r] + (wants[r] - rejected.get(r, 0) if r in wants else 0) for r in done}
        right = sorted(b for r, table in tables.items() for b in table[: done[r] // SIZE])
        expect.equal(sorted(published), right, "all that was ever published")
