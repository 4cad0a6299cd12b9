"""Chapter 08, continuous batching: its exercises' checks."""

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch08 import MAKE_ROOM, PLAN_CHUNKS, RAGGED_BATCH, SCHEDULE


@dataclass(eq=False)
class Asked:
    """A request as these exercises see it. `cached` is what the prefix cache has of it, found when it is admitted."""

    name: str
    num_tokens: int
    num_computed_tokens: int = 0
    cached: int = 0

    @property
    def missing(self) -> int:
        return self.num_tokens - self.num_computed_tokens

    def __repr__(self) -> str:
        return self.name


class Step:
    """One call of `schedule`, with what it was given and what it did."""

    def __init__(
        self,
        schedule: Answer,
        running: list[Asked],
        waiting: list[Asked],
        budget: int,
        max_num_seqs: int = 8,
        refused: Sequence[str] = (),
    ) -> None:
        self.running, self.waiting, self.budget, self.max_num_seqs = running, waiting, budget, max_num_seqs
        self.ran, self.waited = list(running), list(waiting)
        self.asked: list[Asked] = []
        self.refused = refused
        self.result = schedule(running, waiting, budget, max_num_seqs, self.admit)
        self.admitted = [request for request in self.asked if request.name not in refused]

    def admit(self, request: Asked) -> bool:
        if request in self.asked:
            raise Wrong(f"admit({request}) is called twice in one step: the first yes has taken the blocks")
        if request not in self.waited:
            raise Wrong(f"admit({request}) is called for a request that does not wait")
        self.asked.append(request)
        if request.name in self.refused:
            return False
        request.num_computed_tokens = request.cached
        return True

    def check(self) -> dict[Asked, int]:
        """Raise `Wrong` for the first thing that is wrong; returns the tokens of each request."""
        tokens = self._tokens()
        self._check_numbers(tokens)
        self._check_admission(tokens)
        self._check_shares(tokens)
        expect.equal(
            [request.name for request in tokens],
            [r.name for r in [*self.ran, *self.admitted] if r in tokens],
            "the order of the requests",
        )
        return tokens

    def _tokens(self) -> dict[Asked, int]:
        expect.something(self.result)
        expect.that(
            isinstance(self.result, list), f"a list is wanted, and this is a {type(self.result).__name__}"
        )
        tokens: dict[Asked, int] = {}
        for entry in self.result:
            if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], Asked)):
                raise Wrong(f"the result holds {entry!r}; pairs (request, num_tokens) are wanted")
            request, number = entry
            expect.equal(number, int(number), f"the number of tokens of {request}")
            expect.that(request not in tokens, f"{request} is in the result twice")
            tokens[request] = number
        return tokens

    def _check_numbers(self, tokens: dict[Asked, int]) -> None:
        for request, number in tokens.items():
            expect.that(
                number > 0, f"{request} is listed with {number} tokens: leave out who gets none in this step"
            )
            if number > request.missing and request.cached:
                raise Wrong(
                    f"{request} is to compute {number} tokens and misses {request.missing}: `admit` found a prefix of "
                    f"{request.cached} tokens in the cache. Look up num_computed_tokens after it, not before"
                )
            expect.that(
                number <= request.missing,
                f"{request} is to compute {number} tokens and misses {request.missing}",
            )
        total = sum(tokens.values())
        expect.that(
            total <= self.budget,
            f"the step computes {total} tokens, and the budget is {self.budget}: it is for all requests together",
        )

    def _check_admission(self, tokens: dict[Asked, int]) -> None:
        most = max(self.max_num_seqs, len(self.ran))
        expect.that(
            len(self.ran) + len(self.admitted) <= most,
            f"{len(self.ran) + len(self.admitted)} requests run after this step, and max_num_seqs is "
            f"{self.max_num_seqs}",
        )
        expect.that(
            self.asked == self.waited[: len(self.asked)],
            f"{self.asked[-1:]} was asked for out of turn: who waits is served in order, and nobody may overtake "
            f"{self.waited[:1]}",
        )
        expect.that(
            not any(request.name in self.refused for request in self.asked[:-1]),
            f"admit said no to one and was then asked for {self.asked[-1:]}: those behind must not overtake, or a "
            "large request would wait for ever",
        )
        for request in self.asked:
            if request not in tokens and (request in self.admitted or sum(tokens.values()) == self.budget):
                raise Wrong(
                    f"admit({request}) was called with nothing of the budget left: a yes takes blocks, for a request "
                    "that computes nothing in this step"
                )
        still, moved = self.waited[len(self.admitted) :], [*self.ran, *self.admitted]
        if (self.running, self.waiting) != (moved, still):
            raise Wrong(
                f"an admitted request moves from `waiting` to the end of `running`: after this step running is "
                f"{self.running} and should be {moved}, waiting is {self.waiting} and should be {still}"
            )

    def _check_shares(self, tokens: dict[Asked, int]) -> None:
        """Everybody in turn gets all that it misses, or all that is left."""
        left = self.budget
        for request in [*self.ran, *self.admitted]:
            wanted, got = min(request.missing, left), tokens.get(request, 0)
            if got < wanted and request in self.ran and any(r in tokens for r in self.admitted):
                raise Wrong(
                    f"{request} runs and gets {got} tokens instead of {wanted}, while {self.admitted[0]}, which "
                    "waited, is served: those that run come before those that wait"
                )
            self._check_share(request, got, wanted, left)
            left -= got
        full = len(self.ran) + len(self.admitted) >= self.max_num_seqs or any(
            r.name in self.refused for r in self.asked
        )
        behind = self.waited[len(self.admitted) :]
        if behind and left and not full:
            raise Wrong(
                f"{behind[0]} waits though {left} tokens of the budget, a place and memory are left: it gets a chunk "
                "of its prompt now, and the rest later"
            )

    def _check_share(self, request: Asked, got: int, wanted: int, left: int) -> None:
        if got == 0 < wanted:
            raise Wrong(
                f"{request} misses {request.missing} tokens and gets nothing, with {left} of the budget left: who "
                "does not fit whole gets a chunk"
            )
        if got == 1 < wanted:
            raise Wrong(
                f"{request} gets one token, as if it decoded; it misses {request.missing}, and {left} are left: no "
                "phase tells prompt from output, only what is missing counts"
            )
        expect.that(
            got == wanted,
            f"{request} gets {got} tokens; it misses {request.missing}, and {left} of the budget are left",
        )


@SCHEDULE.part("those that run, under a budget", points=1)
def schedule_running(schedule: Answer) -> None:
    for budget in (64, 8, 1):
        running = [Asked("a", 10, 9), Asked("b", 20, 4), Asked("c", 7, 6)]
        Step(schedule, running, [], budget).check()


@SCHEDULE.part("those that wait, in order", points=3)
def schedule_waiting(schedule: Answer) -> None:
    def waiting() -> list[Asked]:
        return [Asked("u", 6), Asked("v", 12), Asked("w", 3)]

    Step(schedule, [], waiting(), 64).check()
    Step(schedule, [], [Asked("u", 20, cached=16), Asked("v", 9)], 24).check()
    for budget in (16, 7, 1):
        Step(schedule, [Asked("a", 10, 9), Asked("b", 9, 8)], waiting(), budget).check()
    Step(schedule, [Asked("a", 10, 9), Asked("b", 40, 8)], waiting(), 16).check()
    for max_num_seqs in (3, 2, 1):
        Step(schedule, [Asked("a", 10, 9)], waiting(), 64, max_num_seqs).check()
    for refused in ("u", "v"):
        Step(schedule, [Asked("a", 10, 9)], waiting(), 64, refused=[refused]).check()


@SCHEDULE.part("a server from the first request to the last", points=2)
def schedule_server(schedule: Answer) -> None:
    rng = random.Random(8)
    for budget, max_num_seqs in ((16, 4), (5, 3), (3, 8), (64, 2)):
        names = [f"request {i}" for i in range(14)]
        waiting = [Asked(name, rng.randint(1, 40), cached=0) for name in names]
        for request in waiting:
            request.cached = rng.choice([0, (request.num_tokens - 1) // 2])
        outputs = {request: rng.randint(1, 9) for request in waiting}
        running: list[Asked] = []
        while outputs:
            refused = [request.name for request in waiting if running and rng.random() < 0.2]
            tokens = Step(schedule, running, waiting, budget, max_num_seqs, refused).check()
            expect.that(bool(tokens), "a step computes nothing, though requests wait: the server hangs")
            for request, number in tokens.items():
                request.num_computed_tokens += number
                if request.missing == 0:  # it samples: one token more, or it is done
                    request.num_tokens += 1
                    outputs[request] -= 1
                    if outputs[request] == 0:
                        del outputs[request]
                        running.remove(request)


def check_plan(
    plan: Answer, num_tokens: int, num_decoding: int, budget: int, threshold: int | None = None
) -> None:
    """The chunks of a prompt that can be computed."""
    case = (
        f"plan_chunks({num_tokens}, {num_decoding}, {budget}{'' if threshold is None else f', {threshold}'})"
    )
    limit = threshold or 0
    try:
        chunks = plan(num_tokens, num_decoding, budget, *([] if threshold is None else [threshold]))
    except ValueError as problem:
        why = ": a threshold of 0 is no such limit" if not limit else ""
        raise Wrong(f"{case} is refused ({problem}), and the prompt can be computed{why}") from None
    expect.something(chunks, case)
    expect.equal(type(chunks).__name__, "list", f"the type of {case}")
    expect.that(0 not in chunks, f"{case} has an empty chunk: {chunks}")
    if sum(chunks) < num_tokens:
        raise Wrong(f"{case} is {chunks}: {num_tokens - sum(chunks)} tokens of the prompt are never computed")
    expect.that(sum(chunks) == num_tokens, f"{case} is {chunks}: {sum(chunks)} tokens, more than there are")
    room = budget - num_decoding
    if limit and chunks[0] == limit - num_decoding < min(room, num_tokens):
        raise Wrong(
            f"{case} is {chunks}: the threshold is for one request's chunk alone; the others' tokens do not count in it"
        )
    if limit and max(chunks) > limit:
        raise Wrong(f"{case} is {chunks}: a chunk of {max(chunks)} is more than the threshold of {limit}")
    if max(chunks) > room >= chunks[0]:
        raise Wrong(
            f"{case} is {chunks}: the {num_decoding} other requests take a token each out of every step's budget, not "
            "only out of the first one's"
        )
    if max(chunks) > room:
        raise Wrong(
            f"{case} is {chunks}: with the {num_decoding} that decode a step has {max(chunks) + num_decoding} tokens, "
            f"and the budget is {budget}"
        )
    room = min(room, limit) if limit else room
    right = [room] * (num_tokens // room) + [num_tokens % room] * (num_tokens % room > 0)
    if chunks != right:
        raise Wrong(f"{case} is {chunks}: as early as possible is {right}")


@PLAN_CHUNKS.part("a prompt by itself", points=1)
def plan_alone(plan: Answer) -> None:
    for num_tokens, budget in ((10, 4), (8, 4), (3, 4), (4, 4), (1, 4), (5, 1)):
        check_plan(plan, num_tokens, 0, budget)


@PLAN_CHUNKS.part("beside requests that decode, and with a threshold", points=2)
def plan_beside(plan: Answer) -> None:
    check_plan(plan, 100, 3, 16)
    check_plan(plan, 20, 15, 16)
    check_plan(plan, 26, 3, 16, 0)
    for num_tokens, num_decoding, budget, threshold in ((100, 3, 128, 32), (64, 3, 35, 32), (90, 10, 32, 30)):
        check_plan(plan, num_tokens, num_decoding, budget, threshold)


@PLAN_CHUNKS.part("a prompt that would never be computed", points=1)
def plan_never(plan: Answer) -> None:
    for num_decoding, budget, threshold in ((16, 16, 0), (20, 16, 0), (16, 16, 8)):
        try:
            chunks = plan(40, num_decoding, budget, threshold)
        except ValueError:
            continue
        raise Wrong(
            f"plan_chunks(40, {num_decoding}, {budget}, {threshold}) is {chunks!r:.80}: {num_decoding} requests use up "
            f"the budget, so the prompt would wait for ever. Raise a ValueError"
        )
    check_plan(plan, 2, 15, 16)


# Three requests in blocks of 4: a prompt from its start, a decode step, and a chunk in the midst of a prompt.
CHUNKS = (
    Chunk([11, 12, 13, 14, 15], 0, [3, 1]),
    Chunk([21], 9, [7, 2, 5]),
    Chunk([31, 32], 6, array("i", [4, 6])),
)
BLOCK_SIZE = 4
FIELDS = {
    "token_ids": torch.int64,
    "positions": torch.int64,
    "query_start": torch.int32,
    "slot_mapping": torch.int64,
}


def four(ragged: Answer, chunks: Sequence[Chunk] = CHUNKS, block_size: int = BLOCK_SIZE) -> dict[str, Any]:
    """The learner's tensors by name, each one-dimensional."""
    result = ragged(list(chunks), block_size)
    expect.something(result)
    if not isinstance(result, tuple | list) or len(result) != 4:
        raise Wrong(f"four tensors are wanted, and this is {result!r:.80}")
    for name, value in zip(FIELDS, result, strict=True):
        expect.something(value, name)
        if isinstance(value, Tensor) and value.dim() == 2 and name != "query_start":
            raise Wrong(
                f"{name} has shape {list(value.shape)}: a rectangle pads the short requests to the longest, and the "
                "model would compute the padding. Lay the chunks end to end"
            )
    return dict(zip(FIELDS, result, strict=True))


def per_token(value: Any) -> Tensor:
    """One value of each (chunk, position), laid end to end."""
    return torch.tensor([value(c, c.num_computed + i, i) for c in CHUNKS for i in range(len(c.token_ids))])


@RAGGED_BATCH.part("which tokens, and whose", points=1)
def ragged_tokens(ragged: Answer) -> None:
    mine, right = four(ragged), Batch.of(CHUNKS, BLOCK_SIZE)
    expect.close(mine["token_ids"], right.token_ids, "T", name="token_ids")
    starts, count = mine["query_start"], len(CHUNKS)
    if isinstance(starts, Tensor) and list(starts.shape) == [count]:
        raise Wrong(
            f"query_start has {count} entries for {count} requests: R + 1 are wanted, as the last one ends somewhere "
            "too"
        )
    lengths = torch.tensor([0] + [len(c.token_ids) for c in CHUNKS], dtype=torch.int32)
    expect.close(
        starts,
        right.query_start,
        "R+1",
        name="query_start",
        mistakes={
            "query_start holds the lengths; they must add up: request r begins where r - 1 ends": lengths
        },
    )


@RAGGED_BATCH.part("where in its text each token stands", points=1)
def ragged_positions(ragged: Answer) -> None:
    right = Batch.of(CHUNKS, BLOCK_SIZE).positions
    expect.close(
        four(ragged)["positions"],
        right,
        "T",
        name="positions",
        mistakes={
            "positions count from the start of the chunk: the tokens that were cached before it come first": per_token(
                lambda c, p, i: i
            ),
            "a position is a place in the request's own text, not the place in the batch": torch.arange(
                len(right)
            ),
            "positions are one too far: after 9 tokens, at 0 to 8, the next one stands at 9": right + 1,
        },
    )


@RAGGED_BATCH.part("where its key and value go", points=2)
def ragged_slots(ragged: Answer) -> None:
    size = BLOCK_SIZE
    expect.close(
        four(ragged)["slot_mapping"],
        Batch.of(CHUNKS, size).slot_mapping,
        "T",
        name="slot_mapping",
        mistakes={
            "slot_mapping holds a block's number; a block has room for block_size tokens, each with its own "
            "slot": per_token(lambda c, p, i: c.block_table[p // size]),
            "slots are positions, as if every text lay at the start of the cache: look the block up in the block "
            "table": per_token(lambda c, p, i: p),
            "slots count on from the first block: a request's blocks need not follow one another": per_token(
                lambda c, p, i: c.block_table[0] * size + p
            ),
            "slots begin with the chunk's first token, so that they overwrite what is cached: begin at "
            "num_computed": per_token(lambda c, p, i: c.block_table[i // size] * size + i % size),
        },
    )


@RAGGED_BATCH.part("any mixture of chunks", points=1)
def ragged_mixtures(ragged: Answer) -> None:
    rng = random.Random(8)
    for block_size in (1, 4, 16):
        blocks = rng.sample(range(400), 400)
        chunks = []
        for _ in range(9):
            computed, length = rng.choice([0, 1, 15, 16, 17, 30]), rng.choice([1, 1, 1, 4, 13])
            held = -(-(computed + length) // block_size) + rng.randint(0, 1)
            table, blocks = blocks[:held], blocks[held:]
            if len(table) < held:
                break
            chunks.append(Chunk([rng.randrange(1000) for _ in range(length)], computed, array("i", table)))
        mine, right = four(ragged, chunks, block_size), Batch.of(chunks, block_size)
        for name in FIELDS:
            axes = "R+1" if name == "query_start" else "T"
            expect.close(mine[name], getattr(right, name), axes, name=f"{name}, blocks of {block_size}")


@dataclass(eq=False)
class Sample:
    """A request that runs: its tokens, the prompt's among them, all but the newest computed."""

    name: str
    num_prompt_tokens: int
    num_outputs: int
    token_ids: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0

    def __post_init__(self) -> None:
        self.token_ids = list(range(self.num_prompt_tokens + self.num_outputs))
        self.num_computed_tokens = len(self.token_ids) - 1

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    def __repr__(self) -> str:
        return self.name


class Pool:
    """Blocks of 4 tokens. Those of the requests in `sharing` have another holder: freeing them frees nothing."""

    def __init__(self, num_free: int, running: Sequence[Sample], sharing: Sequence[Sample] = ()) -> None:
        self.num_free, self.sharing = num_free, sharing
        self.held = {request: -(-request.num_computed_tokens // 4) for request in running}

    def needs(self, request: Sample) -> int:
        return -(-request.num_tokens // 4) - self.held.get(request, 0)

    def grow(self, request: Sample) -> bool:
        needed = self.needs(request)
        if needed > self.num_free:
            return False
        if needed > 0:
            self.num_free -= needed
            self.held[request] = self.held.get(request, 0) + needed
        return True

    def free(self, request: Sample) -> None:
        if request not in self.held:
            raise Wrong(f"memory.free({request}) is called for a request that holds no block: freed twice?")
        self.num_free += self.held.pop(request) * (request not in self.sharing)


def check_room(
    make_room: Answer,
    asks: int,
    victims: Sequence[int],
    num_free: int = 0,
    sharing: Sequence[int] = (),
) -> None:
    """a, b, c, d run, the oldest first, and e, f wait. Number `asks` asks, and `victims` must go, in this order."""
    running = [Sample("a", 3, 2), Sample("b", 5, 4), Sample("c", 6, 3), Sample("d", 2, 3)]
    waiting = [Sample("e", 5, 0), Sample("f", 4, 0)]
    ran, waited, request = list(running), list(waiting), running[asks]
    kept = {sample: list(sample.token_ids) for sample in ran}
    pool = Pool(num_free, ran, [ran[i] for i in sharing])
    result = make_room(request, running, waiting, pool)
    expect.something(result)
    twice = [sample for sample in running if sample in waiting]
    expect.that(not twice, f"{twice} is in both `running` and `waiting`: it would be scheduled from each")
    lost = [sample for sample in ran if sample not in running and sample not in waiting]
    expect.that(not lost, f"{lost} is neither in `running` nor in `waiting`: its user waits for ever")
    gone = [sample for sample in ran if sample not in running]
    _check_victims(request, ran, gone, [ran[i] for i in victims])
    for victim in gone:
        _check_victim(victim, pool, kept[victim])
    right = [*reversed([ran[i] for i in victims]), *waited]
    if waiting != right and gone and waiting[-1] in gone:
        raise Wrong(
            f"waiting is {waiting}: who was preempted came before all that wait, so it must not go to the end of the "
            "queue"
        )
    expect.that(waiting == right, f"waiting is {waiting}; in order of arrival it is {right}")
    expect.that(running == [s for s in ran if s not in gone], f"the order of `running` is changed: {running}")
    stays = request not in gone
    expect.that(
        result is stays or result == stays,
        f"the result is {result!r}; {request} has {'' if stays else 'no '}room",
    )
    expect.that(not stays or pool.needs(request) <= 0, f"{request} runs on without room for its next token")


def _check_victims(request: Sample, ran: list[Sample], gone: list[Sample], right: list[Sample]) -> None:
    expect.that(bool(right) or not gone, f"{gone} is preempted without need: memory.grow({request}) says yes")
    newest = ran[-1]
    if request in gone and request not in right:
        raise Wrong(f"{request} gives way itself, though a newer one runs: {newest} must go first")
    if request in right and request not in gone:
        raise Wrong(
            f"{request} asks and is the newest itself, so it goes itself; {gone or 'nobody'} went. An older one is "
            "nearer its end"
        )
    if ran[0] in gone and ran[0] not in right:
        raise Wrong(
            f"{ran[0]} is preempted, the oldest: it has the most to compute again and has waited longest. The newest "
            "goes"
        )
    if len(gone) < len(right):
        raise Wrong(
            f"{gone} went and there is still no room, as its blocks have another holder: it may take more than one. "
            "Ask memory.grow again until it says yes"
        )
    expect.that(set(gone) == set(right), f"{gone} is preempted; it should be {right}")


def _check_victim(victim: Sample, pool: Pool, tokens: list[int]) -> None:
    expect.that(victim not in pool.held, f"{victim} waits and still holds its blocks: memory.free({victim})")
    if victim.token_ids != tokens:
        raise Wrong(
            f"{victim} has lost tokens: what it has generated was shown to its user. It stays, and only its keys and "
            "values are computed again"
        )
    if victim.num_computed_tokens == victim.num_prompt_tokens:
        raise Wrong(
            f"num_computed_tokens of {victim} is the length of its prompt: the keys and values of the prompt are "
            "lost too"
        )
    expect.that(
        victim.num_computed_tokens == 0,
        f"num_computed_tokens of {victim} is {victim.num_computed_tokens}, as if its tokens were still in the cache: "
        "it would read blocks that belong to others",
    )


@MAKE_ROOM.part("room without anybody's loss", points=1)
def room_free(make_room: Answer) -> None:
    check_room(make_room, asks=0, victims=[], num_free=1)
    check_room(make_room, asks=3, victims=[], num_free=2)


@MAKE_ROOM.part("the newest gives way", points=2)
def room_newest(make_room: Answer) -> None:
    check_room(make_room, asks=1, victims=[3])
    check_room(make_room, asks=0, victims=[3])


@MAKE_ROOM.part("one is not enough, and the newest asks", points=2)
def room_more(make_room: Answer) -> None:
    check_room(make_room, asks=1, victims=[3, 2], sharing=[3])
    check_room(make_room, asks=3, victims=[3])
    check_room(make_room, asks=1, victims=[3, 2, 1], sharing=[2, 3])


@MAKE_ROOM.part("in a cache that is too small everybody gets done", points=1)
def room_server(make_room: Answer) -> None:
    wanted = {f"request {i}": 4 + 5 * i % 14 for i in range(7)}
    waiting = [Sample(name, 4, 0) for name in wanted]
    for request in waiting:
        request.num_computed_tokens = 0
    running: list[Sample] = []
    pool, order, steps = Pool(6, []), {request: i for i, request in enumerate(waiting)}, 0
    while waiting or running:
        oldest = running[0] if running else None
        for request in list(running):
            if request in running:
                make_room(request, running, waiting, pool)
        if oldest is not None and oldest not in running:
            raise Wrong(f"{oldest} is preempted while younger ones run: nobody would ever get done")
        while waiting and pool.needs(waiting[0]) + len(running) <= pool.num_free:
            pool.grow(waiting[0])
            running.append(waiting.pop(0))
        expect.equal(
            sorted([*running, *waiting], key=order.__getitem__), [*running, *waiting], "the order of arrival"
        )
        for request in list(running):
            request.num_computed_tokens = request.num_tokens
            request.token_ids.append(0)
            if request.num_tokens == 4 + wanted[request.name]:
                running.remove(request)
                pool.free(request)
        steps += 1
        expect.that(steps < 500, f"after 500 steps {[*running, *waiting]} are not done")
    expect.equal(pool.num_free, 6, "the number of free blocks when all is done")
