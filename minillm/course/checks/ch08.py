"""Chapter 08, continuous batching: its exercises' checks."""

import random
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from minillm.batch import Chunk
from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch08 import MAKE_ROOM, PLAN_CHUNKS, RAGGED_BATCH, SCHEDULE

Rules = Iterable[tuple[bool, str]]  # whether each is broken, and what to say then


def enforce(rules: Rules) -> None:
    """Raise `Wrong` for the first rule that is broken."""
    for broken, message in rules:
        expect.that(not broken, message)


# --- 08.1 schedule ---


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
    """One call of `schedule`, with what it was given, what it did, and what is right."""

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
        self.ran, self.waited, self.refused = list(running), list(waiting), refused
        self.asked: list[Asked] = []
        self.right, self.admissible = self._right()
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

    def _right(self) -> tuple[dict[Asked, int], list[Asked]]:
        """The tokens of each request, in order, and the requests that are to be admitted."""
        left, tokens, admitted = self.budget, dict[Asked, int](), list[Asked]()
        for request in self.ran:
            if number := min(request.missing, left):
                tokens[request] = number
                left -= number
        for request in self.waited:
            if not left or len(self.ran) + len(admitted) >= self.max_num_seqs or request.name in self.refused:
                break
            admitted.append(request)
            tokens[request] = min(request.num_tokens - request.cached, left)
            left -= tokens[request]
        return tokens, admitted

    def check(self) -> dict[Asked, int]:
        """Raise `Wrong` for the first thing that is wrong; returns the tokens of each request."""
        tokens = self._tokens()
        enforce(self._numbers(tokens))
        enforce(self._admission(tokens))
        enforce(self._shares(tokens))
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
            tokens[request] = int(number)
        return tokens

    def _numbers(self, tokens: dict[Asked, int]) -> Rules:
        for request, number in tokens.items():
            yield number <= 0, f"{request} is listed with {number} tokens: leave out a request that gets none"
            more = f"{request} is to compute {number} tokens and misses {request.missing}"
            yield (
                bool(number > request.missing and request.cached),
                f"{more}: `admit` found a prefix of {request.cached} tokens in the cache. Look up num_computed_tokens "
                "after it, not before",
            )
            yield number > request.missing, more
        total = sum(tokens.values())
        yield (
            total > self.budget,
            f"the step computes {total} tokens, and the budget is {self.budget}: it is for all requests together",
        )

    def _admission(self, tokens: dict[Asked, int]) -> Rules:
        count, left = len(self.ran) + len(self.admitted), self.budget - sum(tokens.values())
        yield (
            count > max(self.max_num_seqs, len(self.ran)),
            f"{count} requests run after this step, and max_num_seqs is {self.max_num_seqs}",
        )
        yield (
            self.asked != self.waited[: len(self.asked)]
            or any(request.name in self.refused for request in self.asked[:-1]),
            f"admit was called for {self.asked}, where {self.waited} wait in this order and {list(self.refused)} are "
            "refused: the requests behind must not overtake, or a large one would wait forever",
        )
        for request in self.asked:
            none = request in self.admitted and request not in tokens
            yield (
                none and left > 0,
                f"{request} was admitted and gets nothing, with {left} of the budget left: a request that does not fit "
                "whole gets a chunk",
            )
            yield (
                none or (request not in self.admitted and left == 0),
                f"admit({request}) was called with nothing of the budget left: a yes takes blocks, for a request that "
                "computes nothing in this step",
            )
        still, moved = self.waited[len(self.admitted) :], [*self.ran, *self.admitted]
        yield (
            (self.running, self.waiting) != (moved, still),
            f"an admitted request moves from `waiting` to the end of `running`: after this step running is "
            f"{self.running} and should be {moved}, waiting is {self.waiting} and should be {still}",
        )

    def _shares(self, tokens: dict[Asked, int]) -> Rules:
        left = self.budget
        for request, wanted in self.right.items():
            got = tokens.get(request, 0)
            if request not in [*self.ran, *self.admitted]:
                yield (
                    True,
                    f"{request} waits though {left} tokens of the budget, a place and memory are left: it gets a chunk "
                    "of its prompt now, and the rest later",
                )
            yield (
                got < wanted and request in self.ran and any(r in tokens for r in self.admitted),
                f"{request} runs and gets {got} tokens instead of {wanted}, while {self.admitted[:1]}, which waited, "
                "is served: requests that run come before those that wait",
            )
            why = (
                f"{request} gets {got} tokens; it misses {request.missing}, and {left} of the budget are left"
            )
            yield got == 0, f"{why}: a request that does not fit whole gets a chunk"
            yield (
                got == 1 < wanted,
                f"{why}. This is one token, as if it decoded: no phase tells prompt from output, only what is missing "
                "counts",
            )
            yield got != wanted, why
            left -= got
        yield list(tokens) != list(self.right), f"the order is {list(tokens)}; right is {list(self.right)}"


@SCHEDULE.part("running requests, under a budget", points=1)
def schedule_running(schedule: Answer) -> None:
    for budget in (64, 8, 1, 0):
        running = [Asked("a", 10, 9), Asked("b", 20, 4), Asked("c", 7, 6)]
        Step(schedule, running, [], budget).check()
    for budget in (64, 8):  # a and c miss nothing
        running = [Asked("a", 10, 10), Asked("b", 20, 4), Asked("c", 7, 7), Asked("d", 9, 8)]
        Step(schedule, running, [], budget).check()


@SCHEDULE.part("waiting requests, in order", points=3)
def schedule_waiting(schedule: Answer) -> None:
    def waiting() -> list[Asked]:
        return [Asked("u", 6), Asked("v", 12), Asked("w", 3)]

    Step(schedule, [], waiting(), 64).check()
    Step(schedule, [], [Asked("u", 20, cached=16), Asked("v", 9)], 24).check()
    for budget in (16, 7, 1, 0):
        Step(schedule, [Asked("a", 10, 9), Asked("b", 9, 8)], waiting(), budget).check()
    Step(schedule, [Asked("a", 10, 9), Asked("b", 40, 8)], waiting(), 16).check()
    for max_num_seqs in (3, 2, 1):
        Step(schedule, [Asked("a", 10, 9)], waiting(), 64, max_num_seqs).check()
        Step(schedule, [Asked("a", 10, 10), Asked("b", 9, 8)], waiting(), 64, max_num_seqs).check()
    for refused in ("u", "v"):
        Step(schedule, [Asked("a", 10, 9)], waiting(), 64, refused=[refused]).check()


@SCHEDULE.part("a server from the first request to the last", points=2)
def schedule_server(schedule: Answer) -> None:
    dice = random.Random(8)
    for budget, max_num_seqs in ((16, 4), (5, 3), (3, 8), (64, 2)):
        waiting = [Asked(f"request {i}", dice.randint(1, 40)) for i in range(12)]
        for request in waiting:
            request.cached = dice.choice([0, (request.num_tokens - 1) // 2])
        outputs = {request: dice.randint(1, 9) for request in waiting}
        running: list[Asked] = []
        while outputs:
            refused = [request.name for request in waiting if running and dice.random() < 0.2]
            tokens = Step(schedule, running, waiting, budget, max_num_seqs, refused).check()
            for request, number in tokens.items():
                request.num_computed_tokens += number
            for request in list(running):
                if request.missing == 0 and dice.random() < 0.9:  # it samples: one token more, or it is done
                    request.num_tokens += 1
                    outputs[request] -= 1
                    if outputs[request] == 0:
                        del outputs[request]
                        running.remove(request)


# --- 08.2 plan_chunks ---


def chunks_of(num_tokens: int, room: int) -> list[int]:
    return [min(room, num_tokens - start) for start in range(0, num_tokens, max(room, 1))]


def right_plan(num_tokens: int, num_decoding: int, budget: int, threshold: int = 0) -> list[int]:
    return chunks_of(num_tokens, min(budget - num_decoding, threshold or budget))


def even(num_tokens: int, num_decoding: int, budget: int, threshold: int = 0) -> list[int]:
    steps = len(right_plan(num_tokens, num_decoding, budget, threshold))
    return [num_tokens // steps + (i < num_tokens % steps) for i in range(steps)]


def decodes_once(num_tokens: int, num_decoding: int, budget: int, threshold: int = 0) -> list[int]:
    first = min(budget - num_decoding, threshold or budget, num_tokens)
    return [first, *chunks_of(num_tokens - first, min(budget, threshold or budget))]


PLAN_MISTAKES: dict[str, Callable[..., list[int]]] = {
    "the prompt is spread evenly: compute its tokens as early as possible": even,
    "the last tokens of the prompt are never computed": lambda n, d, b, t=0: [
        chunk for chunk in right_plan(n, d, b, t) if chunk == right_plan(n, d, b, t)[0]
    ],
    "there is an empty chunk at the end: a step without a token of the prompt is none of its steps": (
        lambda n, d, b, t=0: [*right_plan(n, d, b, t), 0]
    ),
}
BESIDE_MISTAKES: dict[str, Callable[..., list[int]]] = {
    "the requests that decode take a token each out of every step's budget, not only out of the first one's": (
        decodes_once
    ),
    "the budget is overrun: with the requests that decode a step computes more": (
        lambda n, d, b, t=0: right_plan(n, 0, b, t)
    ),
    "a chunk is more than the threshold": lambda n, d, b, t=0: right_plan(n, d, b),
    "the threshold is for one request's chunk alone; the others' tokens do not count in it": (
        lambda n, d, b, t=0: chunks_of(n, min(b, t or b) - d)
    ),
}


def planned(plan: Answer) -> Callable[..., Any]:
    """The learner's function, which may not refuse what can be computed."""

    def chunks(*args: int) -> Any:
        try:
            return plan(*args)
        except ValueError as problem:
            why = "" if args[3:] > (0,) else ": a threshold of 0 is no such limit"
            raise Wrong(
                f"plan_chunks{args} is refused ({problem}), and the prompt can be computed{why}"
            ) from None

    return chunks


@PLAN_CHUNKS.part("a prompt by itself", points=1)
def plan_alone(plan: Answer) -> None:
    cases = [(10, 0, 4), (8, 0, 4), (3, 0, 4), (4, 0, 4), (1, 0, 4), (5, 0, 1)]
    expect.cases(planned(plan), right_plan, cases, mistakes=PLAN_MISTAKES)


@PLAN_CHUNKS.part("together with requests that decode, and with a threshold", points=2)
def plan_beside(plan: Answer) -> None:
    cases = [(100, 3, 16), (20, 15, 16), (26, 3, 16, 0), (100, 3, 128, 32), (64, 3, 35, 32), (90, 10, 32, 30)]
    dice = random.Random(0)
    for _ in range(90):
        budget = dice.randint(1, 40)
        cases.append((dice.randint(1, 99), dice.randrange(budget), budget, dice.randint(0, budget)))
    expect.cases(planned(plan), right_plan, cases, mistakes=PLAN_MISTAKES | BESIDE_MISTAKES)


@PLAN_CHUNKS.part("a prompt that would never be computed", points=1)
def plan_never(plan: Answer) -> None:
    for num_decoding, budget, threshold in ((16, 16, 0), (20, 16, 0), (16, 16, 8)):
        try:
            chunks = plan(40, num_decoding, budget, threshold)
        except ValueError:
            continue
        raise Wrong(
            f"plan_chunks(40, {num_decoding}, {budget}, {threshold}) is {chunks!r:.80}: {num_decoding} requests use up "
            f"the budget, so the prompt would wait forever. Raise a ValueError"
        )
    expect.cases(planned(plan), right_plan, [(2, 15, 16)])


# --- 08.3 ragged_batch ---

# Three requests in blocks of 4: a prompt from its start, a decode step, and a chunk in the midst of a prompt.
CHUNKS = (
    Chunk([11, 12, 13, 14, 15], 0, [3, 1]),
    Chunk([21], 9, [7, 2, 5]),
    Chunk([31, 32], 6, array("i", [4, 6])),
)
FIELDS = ("token_ids", "positions", "query_start", "slot_mapping")


def per_token(value: Callable[[Chunk, int, int, int], int]) -> Callable[..., Tensor]:
    """value(chunk, position, place in the chunk, block size) for each token, laid end to end."""

    def values(chunks: Sequence[Chunk], size: int) -> Tensor:
        return torch.tensor(
            [value(c, c.num_computed + i, i, size) for c in chunks for i in range(len(c.token_ids))]
        )

    return values


RIGHT: dict[str, Callable[..., Tensor]] = {
    "token_ids": per_token(lambda c, p, i, size: c.token_ids[i]),
    "positions": per_token(lambda c, p, i, size: p),
    "query_start": lambda chunks, size: torch.tensor(
        list(accumulate((len(c.token_ids) for c in chunks), initial=0))
    ),
    "slot_mapping": per_token(lambda c, p, i, size: c.block_table[p // size] * size + p % size),
}


def one_of(ragged: Answer, name: str) -> Callable[..., Any]:
    """The tensor of this name of the learner's four; query_start is compared as int64."""

    def tensor(chunks: Sequence[Chunk], block_size: int) -> Any:
        result = ragged(list(chunks), block_size)
        expect.something(result)
        if not isinstance(result, tuple | list) or len(result) != 4:
            raise Wrong(f"four tensors are wanted, and this is {result!r:.80}")
        value = result[FIELDS.index(name)]
        if isinstance(value, Tensor) and value.dim() == 2:
            raise Wrong(
                f"{name} has shape {list(value.shape)}: a rectangle pads the short requests to the longest, and the "
                "model would compute the padding. Lay the chunks end to end"
            )
        if name != "query_start" or not isinstance(value, Tensor):
            return value
        expect.that(
            list(value.shape) != [len(chunks)],
            f"query_start has {len(chunks)} entries for {len(chunks)} requests: R + 1 are wanted, as the last one ends "
            "somewhere too",
        )
        if value.dtype == torch.int64:
            print("Note: query_start is int64; kernels read it as int32. Give it dtype=torch.int32")
        return value.long() if value.dtype == torch.int32 else value

    return tensor


def check_field(
    ragged: Answer,
    name: str,
    mistakes: dict[str, Callable[..., Tensor]],
    chunks: Sequence[Chunk] = CHUNKS,
    size: int = 4,
) -> None:
    axes = "R+1" if name == "query_start" else "T"
    expect.cases(one_of(ragged, name), RIGHT[name], [(chunks, size)], axes=axes, mistakes=mistakes)


@RAGGED_BATCH.part("which tokens, and of which request", points=1)
def ragged_tokens(ragged: Answer) -> None:
    check_field(ragged, "token_ids", {})
    lengths = "query_start holds the lengths; they must add up: request r begins where r - 1 ends"
    check_field(
        ragged,
        "query_start",
        {lengths: lambda chunks, size: torch.tensor([0] + [len(c.token_ids) for c in chunks])},
    )


@RAGGED_BATCH.part("where in its text each token is", points=1)
def ragged_positions(ragged: Answer) -> None:
    check_field(
        ragged,
        "positions",
        {
            "positions count from the start of the chunk: the tokens that were cached before it come first": per_token(
                lambda c, p, i, size: i
            ),
            "a position is a place in the request's own text, not the place in the batch": (
                lambda chunks, size: torch.arange(sum(len(c.token_ids) for c in chunks))
            ),
            "positions are one too far: after 9 tokens, at 0 to 8, the next one is at 9": per_token(
                lambda c, p, i, size: p + 1
            ),
        },
    )


@RAGGED_BATCH.part("where its key and value go", points=2)
def ragged_slots(ragged: Answer) -> None:
    check_field(
        ragged,
        "slot_mapping",
        {
            "slot_mapping holds a block's number; a block has room for block_size tokens, each with its own "
            "slot": per_token(lambda c, p, i, size: c.block_table[p // size]),
            "slots are positions, as if every text lay at the start of the cache: look the block up in the block "
            "table": per_token(lambda c, p, i, size: p),
            "slots count on from the first block: a request's blocks need not follow one another": per_token(
                lambda c, p, i, size: c.block_table[0] * size + p
            ),
            "slots begin with the chunk's first token, so that they overwrite what is cached: begin at "
            "num_computed": per_token(lambda c, p, i, size: c.block_table[i // size] * size + i % size),
        },
    )


@RAGGED_BATCH.part("any mixture of chunks, in blocks of any size", points=1)
def ragged_mixtures(ragged: Answer) -> None:
    dice = random.Random(8)
    for block_size in (1, 3, 4, 11, 16):
        blocks = iter(dice.sample(range(400), 400))
        chunks = []
        for _ in range(dice.randint(1, 9)):
            computed, length = dice.choice([0, 1, 15, 16, 17, 30]), dice.choice([1, 1, 1, 4, 13])
            held = -(-(computed + length) // block_size) + dice.randint(0, 1)
            table = array("i", [block for _, block in zip(range(held), blocks, strict=False)])
            chunks.append(Chunk([dice.randrange(1000) for _ in range(length)], computed, table))
        for name in FIELDS:
            check_field(ragged, name, {}, chunks, block_size)


# --- 08.4 make_room ---


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
    tokens = {sample: list(sample.token_ids) for sample in ran}
    pool = Pool(num_free, ran, [ran[i] for i in sharing])
    result = make_room(request, running, waiting, pool)
    expect.something(result)
    gone, right = [sample for sample in ran if sample not in running], [ran[i] for i in victims]
    enforce(_lists(ran, running, waiting, pool))
    for victim in gone:
        enforce(_victim(victim, pool, tokens[victim]))
    enforce(_victims(request, ran, gone, right))
    wait, stays = [*reversed(right), *waited], request not in gone
    yes = "" if stays else "no "
    enforce(
        [
            (
                waiting != wait and waiting[-1] in gone,
                f"waiting is {waiting}: a preempted request came before all that wait, so it does not go to the end of "
                "the queue",
            ),
            (waiting != wait, f"waiting is {waiting}; in order of arrival it is {wait}"),
            (running != ran[: len(running)], f"the order of `running` is changed: {running}"),
            (result != stays, f"the result is {result!r}; {request} has {yes}room"),
            (stays and pool.needs(request) > 0, f"{request} runs on without room for its next token"),
        ]
    )


def _lists(ran: list[Sample], running: list[Sample], waiting: list[Sample], pool: Pool) -> Rules:
    twice = [sample for sample in running if sample in waiting]
    lost = [sample for sample in ran if sample not in running and sample not in waiting]
    freed = [sample for sample in ran if sample not in pool.held]
    yield bool(twice), f"{twice} is in both `running` and `waiting`: it would be scheduled from each"
    yield bool(lost), f"{lost} is neither in `running` nor in `waiting`: its user waits forever"
    yield (
        running == ran and bool(freed),
        f"the blocks of {freed} were freed, and `running` is as it was: change the two lists themselves, with pop and "
        "insert. A name that is assigned anew is your function's own",
    )


def _victim(victim: Sample, pool: Pool, tokens: list[int]) -> Rules:
    computed = victim.num_computed_tokens
    yield victim in pool.held, f"{victim} waits and still holds its blocks: memory.free({victim})"
    yield (
        victim.token_ids != tokens,
        f"{victim} has lost tokens: what it has generated was shown to its user. It stays, and only its keys and "
        "values are computed again",
    )
    yield (
        computed == victim.num_prompt_tokens,
        f"num_computed_tokens of {victim} is the length of its prompt: the keys and values of the prompt are lost too",
    )
    yield (
        computed != 0,
        f"num_computed_tokens of {victim} is {computed}, as if its tokens were still in the cache: it would read "
        "blocks that belong to others",
    )


def _victims(request: Sample, ran: list[Sample], gone: list[Sample], right: list[Sample]) -> Rules:
    yield bool(gone) and not right, f"{gone} is preempted without need: memory.grow({request}) says yes"
    yield (
        request in gone and request not in right and ran[-1] not in gone,
        f"{request} gives way itself, though a newer one runs: {ran[-1]} must go first",
    )
    yield (
        request is ran[-1] and request in right and request not in gone,
        f"{request} asks and is the newest itself, so it goes itself; {gone or 'no request'} went. An older one is "
        "nearer its end",
    )
    yield (
        request in right and request not in gone and len(gone) >= len(right),
        f"{gone} went, and {request} stayed: it was the newest of those that still ran, so it was its turn. An older "
        "one is nearer its end",
    )
    yield (
        ran[0] in gone and ran[0] not in right,
        f"{ran[0]} is preempted, the oldest: it has the most to compute again and has waited longest. The newest goes",
    )
    yield (
        gone == ran[len(ran) - len(gone) :] and len(gone) < len(right),
        f"{gone or 'no request'} went and there is still no room, as blocks may have another holder: it may take more "
        "than one. Ask memory.grow again until it says yes",
    )
    yield set(gone) != set(right), f"{gone} is preempted; it should be {right}"


@MAKE_ROOM.part("room that costs no other request", points=1)
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
    check_room(make_room, asks=0, victims=[3, 2, 1], sharing=[2, 3])
    check_room(make_room, asks=1, victims=[3, 2, 1], sharing=[2, 3])


@MAKE_ROOM.part("in a cache that is too small every request gets done", points=1)
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
            raise Wrong(f"{oldest} is preempted while younger ones run: no request would ever get done")
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
