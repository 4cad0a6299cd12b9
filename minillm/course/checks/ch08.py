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

Rules = Iterable[tuple[bool, str]]  # whether each rule is broken, and the message for it


def enforce(rules: Rules) -> None:
    """Raise `Wrong` for the first rule that is broken."""
    for broken, message in rules:
        expect.that(not broken, message)


# --- 08.1 schedule ---


@dataclass(eq=False)
class Asked:
    """A request as these exercises see it. The prefix cache has `cached` of its tokens, found at admission."""

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
    """One call of `schedule`: its arguments, its result and effects, and the right result."""

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
            raise Wrong(
                f"admit({request}) is called twice in one step. The first call has already taken the blocks"
            )
        if request not in self.waited:
            raise Wrong(f"admit({request}) is called for a request that is not in `waiting`")
        self.asked.append(request)
        if request.name in self.refused:
            return False
        request.num_computed_tokens = request.cached
        return True

    def _right(self) -> tuple[dict[Asked, int], list[Asked]]:
        """Return the tokens of each request, in order, and the requests that must be admitted."""
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
        """Return the tokens of each request. Raise `Wrong` for the first mistake."""
        tokens = self._tokens()
        enforce(self._numbers(tokens))
        enforce(self._admission(tokens))
        enforce(self._shares(tokens))
        return tokens

    def _tokens(self) -> dict[Asked, int]:
        expect.something(self.result)
        expect.that(
            isinstance(self.result, list),
            f"the result is a {type(self.result).__name__}; it should be a list",
        )
        tokens: dict[Asked, int] = {}
        for entry in self.result:
            if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], Asked)):
                raise Wrong(f"the result holds {entry!r}; it should hold pairs (request, num_tokens)")
            request, number = entry
            expect.equal(number, int(number), f"the number of tokens of {request}")
            expect.that(request not in tokens, f"{request} is in the result twice")
            tokens[request] = int(number)
        return tokens

    def _numbers(self, tokens: dict[Asked, int]) -> Rules:
        for request, number in tokens.items():
            yield (
                number <= 0,
                (f"{request} is listed with {number} tokens. Leave out a request that gets no token"),
            )
            more = f"{request} is to compute {number} tokens and misses {request.missing}"
            yield (
                bool(number > request.missing and request.cached),
                f"{more}: `admit` found a prefix of {request.cached} tokens in the cache. Read "
                "num_computed_tokens after `admit`, not before",
            )
            yield number > request.missing, more
        total = sum(tokens.values())
        yield (
            total > self.budget,
            f"the step computes {total} tokens, but the budget is {self.budget} for all requests together",
        )

    def _admission(self, tokens: dict[Asked, int]) -> Rules:
        count, left = len(self.ran) + len(self.admitted), self.budget - sum(tokens.values())
        yield (
            count > max(self.max_num_seqs, len(self.ran)),
            f"{count} requests run after this step, but max_num_seqs is {self.max_num_seqs}",
        )
        yield (
            self.asked != self.waited[: len(self.asked)]
            or any(request.name in self.refused for request in self.asked[:-1]),
            f"admit was called for {self.asked}. {self.waited} wait in this order, and {list(self.refused)} "
            "are refused. After the first refusal, stop: a later request must not overtake, or a large one "
            "would wait forever",
        )
        for request in self.asked:
            none = request in self.admitted and request not in tokens
            yield (
                none and left > 0,
                f"{request} was admitted but gets no token, with {left} tokens of the budget left. A request "
                "that does not fit whole gets a chunk",
            )
            yield (
                none or (request not in self.admitted and left == 0),
                f"admit({request}) was called with nothing of the budget left. `admit` would take blocks for "
                "a request that computes no token in this step",
            )
        still, moved = self.waited[len(self.admitted) :], [*self.ran, *self.admitted]
        yield (
            (self.running, self.waiting) != (moved, still),
            "an admitted request moves from `waiting` to the end of `running`. After this step, running is "
            f"{self.running} and should be {moved}; waiting is {self.waiting} and should be {still}",
        )

    def _shares(self, tokens: dict[Asked, int]) -> Rules:
        left = self.budget
        for request, wanted in self.right.items():
            got = tokens.get(request, 0)
            if request not in [*self.ran, *self.admitted]:
                yield (
                    True,
                    f"{request} waits, although {left} tokens of the budget, a place and memory are left: it "
                    "gets a chunk of its prompt now, and the rest later",
                )
            yield (
                got < wanted and request in self.ran and any(r in tokens for r in self.admitted),
                f"{request} runs and gets {got} tokens instead of {wanted}, but {self.admitted[:1]}, which "
                "waited, gets some. Running requests come before waiting ones",
            )
            why = (
                f"{request} gets {got} tokens. It misses {request.missing}, and {left} of the budget are left"
            )
            yield got == 0, f"{why}. A request that does not fit whole gets a chunk"
            yield (
                got == 1 < wanted,
                f"{why}. You give it one token, as if it decoded. Prompt and output tokens are treated alike: "
                "only the number of missing tokens matters",
            )
            yield got != wanted, why
            left -= got
        yield (
            list(tokens) != list(self.right),
            (f"the order is {list(tokens)}; it should be {list(self.right)}"),
        )


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
    "the prompt is spread evenly. Compute its tokens as early as possible": even,
    "the last tokens of the prompt are never computed. Add the rest as a last chunk": lambda n, d, b, t=0: [
        chunk for chunk in right_plan(n, d, b, t) if chunk == right_plan(n, d, b, t)[0]
    ],
    "there is an empty chunk at the end. Leave out a chunk of 0 tokens": (
        lambda n, d, b, t=0: [*right_plan(n, d, b, t), 0]
    ),
}
BESIDE_MISTAKES: dict[str, Callable[..., list[int]]] = {
    "each decoding request takes one token of the budget in every step, not only in the first one": (
        decodes_once
    ),
    "a step exceeds the budget: the chunk is computed together with the requests that decode, which take one "
    "token each": (lambda n, d, b, t=0: right_plan(n, 0, b, t)),
    "a chunk has more than the threshold": lambda n, d, b, t=0: right_plan(n, d, b),
    "the threshold is for one request's chunk alone. Do not subtract the decoding requests from it": (
        lambda n, d, b, t=0: chunks_of(n, min(b, t or b) - d)
    ),
}


def planned(plan: Answer) -> Callable[..., Any]:
    """Return the learner's function, with a Wrong for a plan that it refuses though it is possible."""

    def chunks(*args: int) -> Any:
        try:
            return plan(*args)
        except ValueError as problem:
            why = "" if args[3:] > (0,) else ". A threshold of 0 is no such limit"
            raise Wrong(
                f"plan_chunks{args} is refused ({problem}), but the prompt can be computed{why}"
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
            f"plan_chunks(40, {num_decoding}, {budget}, {threshold}) is {chunks!r:.80}. The {num_decoding} "
            "decoding requests use the whole budget, so the prompt would wait forever. Raise a ValueError"
        )
    expect.cases(planned(plan), right_plan, [(2, 15, 16)])


# --- 08.3 ragged_batch ---

# Three requests in blocks of 4: a prompt from its start, a decode step, and a chunk in the middle of a prompt.
CHUNKS = (
    Chunk([11, 12, 13, 14, 15], 0, [3, 1]),
    Chunk([21], 9, [7, 2, 5]),
    Chunk([31, 32], 6, array("i", [4, 6])),
)
FIELDS = ("token_ids", "positions", "query_start", "slot_mapping")


def per_token(value: Callable[[Chunk, int, int, int], int]) -> Callable[..., Tensor]:
    """Return a function that gives value(chunk, position, place in the chunk, block size) for each token, in order."""

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
    """Return a function that gives the learner's tensor of this name. query_start is compared as int64."""

    def tensor(chunks: Sequence[Chunk], block_size: int) -> Any:
        result = ragged(list(chunks), block_size)
        expect.something(result)
        if not isinstance(result, tuple | list) or len(result) != 4:
            raise Wrong(f"the result is {result!r:.80}; it should be four tensors")
        value = result[FIELDS.index(name)]
        if isinstance(value, Tensor) and value.dim() == 2:
            raise Wrong(
                f"{name} has the shape {list(value.shape)}: a rectangle pads the short requests to the "
                "longest, and the model would compute the padding. Put the chunks one after another in one "
                "dimension"
            )
        if name != "query_start" or not isinstance(value, Tensor):
            return value
        expect.that(
            list(value.shape) != [len(chunks)],
            f"query_start has {len(chunks)} entries for {len(chunks)} requests. It needs R + 1 entries: the "
            "last one is the end of the last request",
        )
        if value.dtype == torch.int64:
            print("Note: query_start is int64, but kernels read int32. Give it dtype=torch.int32")
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
    lengths = "query_start holds the lengths. They must add up: request r begins where request r - 1 ends"
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
            "positions count from the start of the chunk. The tokens that were cached before it come first: "
            "begin at num_computed": per_token(lambda c, p, i, size: i),
            "positions are the place in the batch. They must be the place in the request's own text": (
                lambda chunks, size: torch.arange(sum(len(c.token_ids) for c in chunks))
            ),
            "positions are one too far. After 9 tokens, at positions 0 to 8, the next one has position 9": per_token(
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
            "slot_mapping holds a block's number. A block has block_size slots, one per token": per_token(
                lambda c, p, i, size: c.block_table[p // size]
            ),
            "slots are positions, as if every text began at the start of the cache. Look each block up in "
            "the block table": per_token(lambda c, p, i, size: p),
            "slots count on from the first block. The blocks of a request need not follow one another: look "
            "each one up in its table": per_token(lambda c, p, i, size: c.block_table[0] * size + p),
            "slots begin with the chunk's first token at place 0, so they overwrite cached tokens. Begin at "
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
    """A running request: its tokens, those of the prompt included. All but the newest are computed."""

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
    """Blocks of 4 tokens. Those of the requests in `sharing` have another holder, so freeing them frees nothing."""

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
            raise Wrong(
                f"memory.free({request}) is called for a request that holds no block: is it freed twice?"
            )
        self.num_free += self.held.pop(request) * (request not in self.sharing)


def check_room(
    make_room: Answer,
    asks: int,
    victims: Sequence[int],
    num_free: int = 0,
    sharing: Sequence[int] = (),
) -> None:
    """Check a call with a, b, c, d running, the oldest first, and e, f waiting."""
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
                f"waiting is {waiting}. A preempted request arrived before all waiting ones, so it does not "
                "go to the end of the queue",
            ),
            (waiting != wait, f"waiting is {waiting}; in order of arrival it should be {wait}"),
            (running != ran[: len(running)], f"the order of `running` has changed to {running}"),
            (result != stays, f"the result is {result!r}, but {request} has {yes}room"),
            (stays and pool.needs(request) > 0, f"{request} keeps running without room for its next token"),
        ]
    )


def _lists(ran: list[Sample], running: list[Sample], waiting: list[Sample], pool: Pool) -> Rules:
    twice = [sample for sample in running if sample in waiting]
    lost = [sample for sample in ran if sample not in running and sample not in waiting]
    freed = [sample for sample in ran if sample not in pool.held]
    yield (
        bool(twice),
        (
            f"{twice} is in both `running` and `waiting`, so it would be scheduled from both. Remove it from "
            "`running`"
        ),
    )
    yield (
        bool(lost),
        (
            f"{lost} is neither in `running` nor in `waiting`, so its user waits forever. Insert it into `waiting`"
        ),
    )
    yield (
        running == ran and bool(freed),
        f"the blocks of {freed} were freed, but `running` has not changed. Change the two lists themselves, "
        "with pop and insert. An assignment to `running` changes only a local name",
    )


def _victim(victim: Sample, pool: Pool, tokens: list[int]) -> Rules:
    computed = victim.num_computed_tokens
    yield victim in pool.held, f"{victim} waits but still holds its blocks. Call memory.free({victim})"
    yield (
        victim.token_ids != tokens,
        f"{victim} has lost tokens that were shown to its user. Its tokens stay: only their keys and values "
        "are computed again",
    )
    yield (
        computed == victim.num_prompt_tokens,
        f"num_computed_tokens of {victim} is the length of its prompt. The keys and values of its prompt are "
        "lost too: set it to 0",
    )
    yield (
        computed != 0,
        f"num_computed_tokens of {victim} is {computed}, as if its tokens were still in the cache, so it "
        "would read blocks of other requests. Set it to 0",
    )


def _victims(request: Sample, ran: list[Sample], gone: list[Sample], right: list[Sample]) -> Rules:
    yield bool(gone) and not right, f"{gone} is preempted without need: memory.grow({request}) returned True"
    yield (
        request in gone and request not in right and ran[-1] not in gone,
        f"{request} is preempted, but a newer one runs: {ran[-1]} must be preempted first",
    )
    yield (
        request is ran[-1] and request in right and request not in gone,
        f"{request} needs room and is the newest itself, so it must be preempted. You preempted "
        f"{gone or 'no request'}. Older requests are nearer to their end",
    )
    yield (
        request in right and request not in gone and len(gone) >= len(right),
        f"{gone} was preempted and {request} stayed, but it was then the newest. Older requests are nearer to "
        "their end",
    )
    yield (
        ran[0] in gone and ran[0] not in right,
        f"{ran[0]} is preempted, the oldest. It has most to compute again, and has waited longest. Preempt "
        "the newest",
    )
    yield (
        gone == ran[len(ran) - len(gone) :] and len(gone) < len(right),
        f"{gone or 'no request'} was preempted and there is still no room, because blocks may have another "
        "holder. You may need more than one victim: call memory.grow again until it returns True",
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
            raise Wrong(f"{oldest} is preempted while newer requests run, so no request would ever finish")
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
        expect.that(steps < 500, f"after 500 steps {[*running, *waiting]} are not finished")
    expect.equal(pool.num_free, 6, "the number of free blocks at the end")
