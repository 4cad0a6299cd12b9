"""Chapter 10, speculative decoding: the checks of 10.5."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.drafted_request import DraftedRequest
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch10 import COMMIT

# --- 10.5 commit ---

SIZE = 4  # tokens per block


@dataclass(eq=False)
class Watched(DraftedRequest):
    """A request that notes which tokens are appended, and how many of them after its end."""

    appended: list[int] = field(default_factory=list)
    num_late: int = 0

    def append(self, token_id: int) -> None:
        self.num_late += self.finished
        self.appended.append(int(token_id))
        ended = self.finished
        super().append(int(token_id))
        self.finished = self.finished or ended


@dataclass(frozen=True)
class Round:
    """A request before a commit, and the tokens that the model samples: one after its last token and each draft."""

    prompt: list[int]
    drafts: list[int]
    sampled: list[int]
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int = 99
    num_published: int = 0

    def request(self) -> Watched:
        blocks = [40 + (7 * i) % 11 for i in range(-(-(len(self.prompt) + 5) // SIZE) + 1)]
        return Watched(
            list(self.prompt),
            self.max_tokens,
            self.stop_token_ids,
            list(self.drafts),
            len(self.prompt) + len(self.drafts),
            self.num_published,
            blocks,
        )

    def keep(self, pairs: Iterable[tuple[int, int | None]], through: bool = False) -> list[int]:
        """Return the tokens of pairs (token, draft) up to the first that differs, or `through` all; cut at the end."""
        kept: list[int] = []
        for token, draft in pairs:
            kept.append(token)
            ended = token in self.stop_token_ids or len(kept) >= self.max_tokens
            if ended or (token != draft and not through):
                break
        return kept

    def right(self) -> list[int]:
        return self.keep(zip(self.sampled, [*self.drafts, None], strict=True))

    @property
    def num_agreeing(self) -> int:
        """Return how many first drafts equal the sampled tokens, without regard to the end of the request."""
        pairs = zip(self.drafts, self.sampled, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def __str__(self) -> str:
        ends = f", stop tokens {list(self.stop_token_ids)}" if self.stop_token_ids else ""
        ends += f", max_tokens {self.max_tokens}" if self.max_tokens < 99 else ""
        return f"{len(self.prompt)} in token_ids, drafts {self.drafts}, sampled {self.sampled}{ends}"


@dataclass(frozen=True)
class Committed:
    """A request after the answer's commit, and the blocks that the answer returned."""

    before: Round
    request: Watched
    blocks: Any

    @property
    def num_right(self) -> int:
        """Return how many tokens have keys and values for certain: all but the newest token of the answer's text."""
        return len(self.request.token_ids) - 1


def rounds(count: int, seed: int) -> list[Round]:
    """Return rounds with 0 to 5 drafts; in some of them the request ends in the middle."""
    dice, found = random.Random(seed), []
    for _ in range(count):
        length, k = dice.randint(1, 14), dice.choice([0, 1, 2, 3, 4, 5, 5])
        drafts = [dice.randint(0, 5) for _ in range(k)]
        wrong = dice.randint(0, k)
        sampled = [dice.randint(0, 5) if i == wrong else draft for i, draft in enumerate([*drafts, 0])]
        if wrong < k:
            sampled[-1] = dice.randint(0, 5)
        stops = tuple(dice.sample(range(6), 1)) if dice.random() < 0.35 else ()
        most = dice.choice([99, 99, 99, 1, 2, 3])
        computed = (length - 1) // SIZE
        published = computed if dice.random() < 0.8 else dice.randint(0, computed)
        found.append(Round([9] * length, drafts, sampled, stops, most, published))
    return found


ROUNDS = sorted(rounds(150, seed=10), key=lambda one: (len(one.drafts), len(one.prompt)))


def commits(commit: Answer) -> list[Committed]:
    """Call the answer on every round. Raise `Wrong` for a change that no commit may make."""
    found = []
    for before in ROUNDS:
        request = before.request()
        table = list(request.block_table)
        blocks = commit(request, list(before.sampled), SIZE)
        added = request.token_ids[len(before.prompt) :]
        expect.that(
            request.token_ids[: len(before.prompt)] == before.prompt and added == request.appended,
            "token_ids itself is changed. Call request.append(token) for each token that stays: it also finds the end "
            f"of the request. ({before})",
        )
        expect.that(
            request.block_table == table,
            "block_table is changed. The blocks of rejected drafts stay in it: the next tokens need their places. "
            f"({before})",
        )
        found.append(Committed(before, request, blocks))
    return found


KEPT: dict[str, Callable[[Round], list[int]]] = {
    "all drafts are appended, a rejected draft too. Append the model's tokens, up to the first one that differs from "
    "its draft": lambda r: r.keep(((x, x) for x in [*r.drafts, r.sampled[-1]]), through=True),
    "only accepted drafts are appended. The first token that differs from its draft is the model's own token: it is "
    "kept too": lambda r: r.right() if r.num_agreeing == len(r.drafts) else r.right()[: r.num_agreeing],
    "only accepted drafts are appended, and no other token. The first token that differs from its draft is kept too, "
    "and sampled[k] if no token differs": lambda r: r.right()[: r.num_agreeing],
    "there is no bonus token. If all drafts are accepted, sampled[k] follows": lambda r: (
        r.right()[: len(r.drafts)] if r.drafts else r.right()
    ),
    "the accepted drafts are lost: only sampled[0] is appended": lambda r: r.sampled[:1],
    "all sampled tokens are kept. A token after the first one that differs from its draft was computed from a text "
    "that does not exist": lambda r: r.keep(((x, None) for x in r.sampled), through=True),
    "drafts are kept after the first one that differs. They were computed from a text that does not exist": lambda r: (
        skipping(r)
    ),
    "draft i is compared with sampled[i + 1]. The model's token in the place of draft i is sampled[i]": lambda r: (
        shifted(r)
    ),
}


def skipping(before: Round) -> list[int]:
    """Return the tokens of an answer that keeps later drafts which agree."""
    agreeing, rejected = list[tuple[int, int | None]](), False
    for token, draft in zip(before.sampled, [*before.drafts, None], strict=True):
        if token == draft or not rejected:
            agreeing.append((token, draft))
        rejected = rejected or token != draft
    return before.keep(agreeing, through=True)


def shifted(before: Round) -> list[int]:
    kept = before.keep([(before.sampled[0], None)])
    for token, draft in zip(before.sampled[1:], before.drafts, strict=True):
        ended = kept[-1] in before.stop_token_ids or len(kept) >= before.max_tokens
        if ended or token != draft:
            break
        kept.append(token)
    return kept


@COMMIT.part("the tokens that stay", points=2)
def commit_tokens(commit: Answer) -> None:
    found = commits(commit)
    for one in found:
        expect.that(
            one.request.num_late == 0,
            "tokens are appended after the request has ended. Its user must not see them: stop when `request.finished` "
            f"is True. ({one.before})",
        )
    kept = [one.request.appended for one in found]
    if kept != [before.right() for before in ROUNDS]:
        message = expect.explanation(KEPT, ROUNDS, kept)
        before, got = next((b, got) for b, got in zip(ROUNDS, kept, strict=True) if got != b.right())
        raise Wrong(
            f"{message or 'the wrong tokens stay'}. For example: {before}: {got} are appended; it should be "
            f"{before.right()}"
        )
    for one in found:
        expect.that(
            not one.request.drafts,
            "the drafts are still there after the commit, so the next step would verify them again. Set "
            f"request.drafts to []. ({one.before})",
        )


COMPUTED: dict[str, Callable[[Committed], int]] = {
    "rejected drafts are still counted in num_computed_tokens. The next step would write its tokens behind them, and "
    "read their keys and values": lambda c: len(c.before.prompt) + len(c.before.drafts),
    "the newest token is counted in num_computed_tokens. It was only sampled: its key and value are computed in the "
    "next step": lambda c: c.num_right + 1,
    "num_computed_tokens is one too few": lambda c: c.num_right - 1,
    "num_computed_tokens does not count accepted drafts, so they are computed again. Their keys and values are right": (
        lambda c: len(c.before.prompt)
    ),
    "num_computed_tokens is what it was before the step, so the step's tokens are computed again": (
        lambda c: len(c.before.prompt) - 1
    ),
    "accepted drafts that the end of the request has cut off are counted. They are cut off by the end, so they are not "
    "part of the text": lambda c: len(c.before.prompt) + c.before.num_agreeing,
}


def computed(commit: Answer) -> list[Committed]:
    """Return the commits. Raise `Wrong` if a number of computed tokens is wrong."""
    found = commits(commit)
    counts = [one.request.num_computed_tokens for one in found]
    for one, count in zip(found, counts, strict=True):
        expect.equal(count, int(expect.number(count)), "num_computed_tokens")
        if count != one.num_right:
            message = expect.explanation(COMPUTED, found, counts)
            raise Wrong(
                f"{message or 'num_computed_tokens is wrong'}. For example: {one.before}: "
                f"the text then has {len(one.request.token_ids)} tokens, the newest has no key and value yet, and "
                f"num_computed_tokens is {count}; it should be {one.num_right}"
            )
    return found


@COMMIT.part("what the cache holds", points=2)
def commit_computed(commit: Answer) -> None:
    computed(commit)


def blocks_to(one: Committed, end: int, first: int | None = None) -> list[int]:
    return one.request.block_table[one.before.num_published if first is None else first : end]


PUBLISHED: dict[str, Callable[[Committed], Any]] = {
    "blocks are published before the drafts are verified, so other requests find the keys and values of rejected "
    "drafts. Correct num_computed_tokens first": lambda c: blocks_to(
        c, (len(c.before.prompt) + len(c.before.drafts)) // SIZE
    ),
    "a block is published that is not full. A request that finds it would read places that hold nothing, or rejected "
    "drafts": lambda c: blocks_to(c, -(-c.num_right // SIZE)),
    "a block is published that the newest token fills. Its key and value are computed in the next step": lambda c: (
        blocks_to(c, (c.num_right + 1) // SIZE)
    ),
    "blocks are published again. Return only the new ones: from num_published on": lambda c: blocks_to(
        c, c.num_right // SIZE, 0
    ),
    "the full blocks are missing from the result: nothing is published": lambda c: [],
    "the result has the indices of blocks. Return the entries of block_table": lambda c: list(
        range(c.before.num_published, c.num_right // SIZE)
    ),
    "a request that has ended publishes nothing. Its blocks are the prefix of a chat's next turn": lambda c: (
        [] if c.request.finished else blocks_to(c, c.num_right // SIZE)
    ),
}


@COMMIT.part("which blocks other requests can find", points=2)
def commit_published(commit: Answer) -> None:
    found = computed(commit)
    results = [one.blocks for one in found]
    for one, blocks in zip(found, results, strict=True):
        right = blocks_to(one, one.num_right // SIZE)
        expect.something(blocks)
        if list(blocks) != right:
            message = expect.explanation(PUBLISHED, found, [list(blocks) for blocks in results])
            raise Wrong(
                f"{message or 'the wrong blocks are published'}. For example: {one.before}: {one.num_right} tokens are "
                f"computed in blocks of {SIZE}, num_published was {one.before.num_published}, and the result is "
                f"{blocks}; it should be {right}"
            )
    for one in found:
        noted, full = one.request.num_published, one.num_right // SIZE
        expect.that(
            noted == full,
            f"num_published is {noted!r} after the commit; it should be {full}, or the next step publishes a wrong "
            f"range of blocks. ({one.before})",
        )
