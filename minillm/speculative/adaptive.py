"""Adaptive speculation: as many drafts as pay, by the measured costs, and none if none pays.

With k drafts, a step gives a request 1 + s(1) a + s(2) a^2 + ... + s(k) a^k tokens on average: a is the share of the
judged drafts that the model accepts, and s(j) is the share of the proposals that have j drafts or more. The step costs
C(d) seconds, drafting included, for d = s(1) + ... + s(k) drafts per request. The best k has the most tokens per
second. All of a, s and C are measured while the engine runs, C for each size of the batch: verifying drafts costs
little for one request and much for a large batch.

Texts change, so now and then a few steps use another k than the best one. Such a probe waits until its expected loss is
a hundredth of the time since the last one.

Source: Leviathan, Kalman, Matias 2023 (arXiv 2211.17192), section 3, for the number of tokens; Liu et al. 2024,
"Optimizing Speculative Decoding for Serving Large Language Models Using Goodput" (arXiv 2406.14066), for the choice.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from minillm.engine.proposer import Computed, Part, Proposer
from minillm.engine.request import Request, Status
from minillm.sampling import Drafts

KEEP = 0.98  # the weight of the past after one more proposal: about the last 50 count
SAMPLES = 6  # the newest measurements of a cost
ENOUGH = 3  # measurements before a cost is used
FOLLOW = 0.3  # the part of a change of speed that each step follows
OUTLIER = 3.0  # the largest change of speed that counts
PROBE_STEPS = 4  # the first one of a draft model computes what its cache lacks, and is not measured
PROBE_SHARE = 0.01  # of the time may be lost by probes
# Each step of a probe counts as a loss between these shares of a usual step, whatever is expected. So at most one step
# in 11 belongs to a probe, and at least one in 51.
LEAST_LOSS, MOST_LOSS = 0.1, 0.5


@dataclass(frozen=True, slots=True)
class Choice:
    """A number of drafts, and why: the fields of `minillm.measure.trace.DraftChoice` without its time."""

    num_requests: int
    num_drafts: int
    acceptance: float
    seconds_without: float | None
    seconds_with: float | None


class Gains:
    """The tokens that a request gets in a step, from what became of recent drafts."""

    def __init__(self, most: int) -> None:
        self.accepted = self.judged = 0.0
        # For each j, the proposals that could have j + 1 drafts, and those that had.
        self.proposals, self.long_enough = [0.0] * most, [0.0] * most

    @property
    def acceptance(self) -> float:
        """Return the share of accepted drafts among those that were judged; 0.5 before any was."""
        return (self.accepted + 0.5) / (self.judged + 1)

    def add(self, num_accepted: int, num_drafts: int, limit: int) -> None:
        """Count a proposal of `num_drafts` drafts, of at most `limit`. Drafts after a rejected one are not judged."""
        self.accepted = KEEP * self.accepted + num_accepted
        self.judged = KEEP * self.judged + min(num_accepted + 1, num_drafts)
        for j in range(limit):
            self.proposals[j] = KEEP * self.proposals[j] + 1
            self.long_enough[j] = KEEP * self.long_enough[j] + (j < num_drafts)

    def forget(self) -> None:
        """Count the past half as much, so that the next few drafts decide."""
        self.accepted, self.judged = self.accepted / 2, self.judged / 2

    def of(self, limit: int) -> tuple[float, float]:
        """Return the expected numbers of tokens and of drafts of a step with at most `limit` drafts."""
        tokens, num_drafts, reached = 1.0, 0.0, 1.0
        for proposals, long_enough in zip(self.proposals[:limit], self.long_enough, strict=False):
            share = long_enough / proposals if proposals else 1.0
            reached *= self.acceptance
            tokens, num_drafts = tokens + reached * share, num_drafts + share
        return tokens, num_drafts


Point = tuple[float, float]  # drafts per request, seconds of a step


class Costs:
    """The seconds of a step for a mean number of drafts per request, in batches of 1, 2, 3-4, 5-8, ... requests.

    A machine can be half as fast for a while, and texts grow. So only ratios are compared, of steps that ran shortly
    after each other: the usual steps say how slow the machine is now, compared with what is typical for them, and the
    seconds of a probe are divided by that.
    """

    def __init__(self) -> None:
        self._slowness: dict[int, float] = {}  # by size of the batch
        # By size of the batch, then by the rounded number of drafts, the newest steps; number -1 has the steps for
        # which the proposer was not asked. `_points` has one point for each of these lists.
        self._steps: dict[int, dict[int, deque[Point]]] = {}
        self._points: dict[int, dict[int, Point]] = {}

    def add(self, num_requests: int, asked: bool, num_drafts: float, seconds: float) -> None:
        """Measure a step with `num_drafts` drafts per request."""
        size, number = _size(num_requests), math.ceil(num_drafts) if asked else -1
        steps = self._steps.setdefault(size, {}).setdefault(number, deque(maxlen=SAMPLES))
        steps.append((num_drafts, seconds / self.slowness(num_requests)))
        if len(steps) >= ENOUGH:
            self._points.setdefault(size, {})[number] = _typical(steps)

    def follow(self, num_requests: int, asked: bool, num_drafts: float, seconds: float) -> None:
        """Let a usual step say how slow the machine is now."""
        size, slowness = _size(num_requests), self.slowness(num_requests)
        expected = self.of(num_requests, [num_drafts])[1] if asked else self._points[size][-1][1]
        change = seconds / (slowness * expected)
        self._slowness[size] = slowness * min(max(change, 1 / OUTLIER), OUTLIER) ** FOLLOW

    def slowness(self, num_requests: int) -> float:
        """Return how long such a batch takes now, compared with what is typical for it."""
        return self._slowness.get(_size(num_requests), 1.0)

    def missing(self, num_requests: int) -> Literal["with", "without"] | None:
        """Return whether steps with or without drafts were measured too rarely in such a batch."""
        numbers = self._points.get(_size(num_requests), {}).keys()
        if not numbers - {-1}:
            return "with"
        return None if -1 in numbers else "without"

    def of(self, num_requests: int, num_drafts: Sequence[float]) -> list[float]:
        """Return the seconds of a step without drafts, and of steps with these numbers of drafts per request.

        They are on the lines between measured steps. Neither of the two kinds of steps may be missing.
        """
        points = dict(self._points[_size(num_requests)])
        without = points.pop(-1)
        asked = sorted(points.values() if 0 in points else [without, *points.values()])
        x, seconds = zip(*asked, strict=True)
        return [without[1], *np.interp(num_drafts, x, seconds).tolist()]


@dataclass(slots=True)
class _Plan:
    """The drafts that the next step verifies, of at most `limit` each, and the seconds that they took.

    `proposals` has each request with its number of tokens so far and of drafts; it is empty if there are no drafts.
    """

    num_requests: int
    limit: int
    probe: bool
    measured: bool = True
    seconds: float = 0.0
    proposals: list[tuple[Request, int, int]] = field(default_factory=list)

    @property
    def num_drafts(self) -> int:
        return sum(num_drafts for _, _, num_drafts in self.proposals)

    def was_computed(self, computed: Computed) -> bool:
        """Return whether the step computed this and nothing else, such as a part of a prompt."""
        computes = self.num_requests, self.num_requests + self.num_drafts
        return (computed.num_requests, computed.num_tokens) == computes


_NOTHING = Drafts([])


class Adaptive:
    """Asks `proposer` for as many drafts as pay, the same number for all requests of a step.

    If no draft pays, a draft model does not run at all, and its cache catches up later. A proposer that reads hidden
    states (`taps`) always runs, because there is no later step that could give it these states. `clock` returns
    seconds, and `report` gets each new choice.
    """

    def __init__(
        self,
        proposer: Proposer,
        clock: Callable[[], float] = time.perf_counter,
        report: Callable[[Choice], None] = lambda choice: None,
    ) -> None:
        self.proposer, self.clock, self.report = proposer, clock, report
        self.num_speculative_tokens = proposer.num_speculative_tokens
        self.taps, self.cache = proposer.taps, proposer.cache
        self.gains, self.costs = Gains(self.num_speculative_tokens), Costs()
        self._plan: _Plan | None = None
        self._probe, self._probe_steps = 0, 0  # the number of drafts of the probe, and its remaining steps
        self._probing, self._num_probes = False, 0
        self._memo: dict[
            int, tuple[list[float], list[float], list[float]]
        ] = {}  # until something new is measured
        self._credit = 0.0  # seconds that a probe may lose
        self._per_token = math.inf  # the seconds per token of the best number of drafts
        self._reported: int | None = None

    def propose(self, computed: Computed) -> Sequence[Drafts]:
        """Return the drafts of each part, at most `limit` and at most the number that pays."""
        self._learn(computed)
        asking = [part for part in computed.parts if part.limit]
        most = self._choose(len(asking)) if asking else 0
        plan = self._plan = _Plan(len(asking), most, self._probing) if asking else None
        if most == 0 and self.taps is None:
            return [_NOTHING] * len(computed.parts)
        parts = [replace(part, limit=min(part.limit, most)) for part in computed.parts]
        measured = all(part.limit >= most and not self._lags(part) for part in asking)
        start = self.clock()
        drafts = self.proposer.propose(replace(computed, parts=parts))
        if plan is not None:
            plan.measured, plan.seconds = measured or most == 0, self.clock() - start
        if plan is not None and most:
            plan.proposals = [
                (part.request, part.request.num_tokens, len(proposed.token_ids))
                for part, proposed in zip(computed.parts, drafts, strict=True)
                if part.limit
            ]
        return drafts

    def _lags(self, part: Part) -> bool:
        """Return whether the proposer's cache lacks more than the tokens of the last step."""
        lacking = part.request.num_tokens - part.request.num_drafted_tokens
        return self.cache is not None and lacking > self.num_speculative_tokens + 1

    def _learn(self, computed: Computed) -> None:
        """Measure the step, if it verified what was proposed last and did nothing else."""
        plan, self._plan = self._plan, None
        if plan is None or not plan.was_computed(computed):
            return
        num_requests, seconds, tokens = plan.num_requests, computed.seconds + plan.seconds, 1.0
        if plan.measured:
            use = self.costs.add if plan.probe else self.costs.follow
            use(num_requests, plan.limit > 0, plan.num_drafts / num_requests, seconds)
        for request, num_tokens, num_drafts in plan.proposals:
            if request.status is Status.RUNNING:  # the last step of a request is cut at its end
                num_accepted = request.num_tokens - num_tokens - 1
                tokens += num_accepted / num_requests
                self.gains.add(num_accepted, num_drafts, plan.limit)
        if plan.probe:
            self._credit -= max(0.0, seconds / self.costs.slowness(num_requests) - tokens * self._per_token)
        if plan.probe or plan.proposals:
            self._memo.clear()

    def _choose(self, num_requests: int) -> int:
        """Return the number of drafts for this step."""
        self._probing = False
        if (missing := self.costs.missing(num_requests)) is not None:
            self._probing, chosen = True, self.num_speculative_tokens if missing == "with" else 0
            self._report(num_requests, chosen, None)
            return chosen
        costs, tokens, per_token = self._expected(num_requests)
        self._per_token = min(per_token)
        chosen = self._or_probe(per_token.index(self._per_token), costs, tokens)
        self._report(num_requests, chosen, per_token)
        return chosen

    def _expected(self, num_requests: int) -> tuple[list[float], list[float], list[float]]:
        """Return the seconds of a step, its tokens per request and seconds per token for 0, 1, ... drafts."""
        if num_requests not in self._memo:
            gains = [self.gains.of(limit) for limit in range(1, self.num_speculative_tokens + 1)]
            tokens = [1.0, *(number for number, _ in gains)]
            costs = self.costs.of(num_requests, [num_drafts for _, num_drafts in gains])
            per_token = [seconds / number for seconds, number in zip(costs, tokens, strict=True)]
            self._memo[num_requests] = costs, tokens, per_token
        return self._memo[num_requests]

    def _or_probe(self, best: int, costs: Sequence[float], tokens: Sequence[float]) -> int:
        """Return `best`, or for a few steps now and then another number of drafts."""
        if self._probe_steps == 0:
            self._credit += PROBE_SHARE * costs[best]
            other = self._neighbour(best)
            loss = costs[other] - tokens[other] * costs[best] / tokens[best]
            low, high = LEAST_LOSS * costs[best], MOST_LOSS * costs[best]
            if self._credit < PROBE_STEPS * min(max(loss, low), high):
                return best
            self._probe, self._probe_steps = other, PROBE_STEPS
            self._num_probes += 1
            if best == 0:
                self.gains.forget()
                self._memo.clear()
        self._probe_steps -= 1
        self._probing = True
        return self._probe

    def _neighbour(self, best: int) -> int:
        """Return what the next probe tries: alternately no drafts and one more or one fewer than `best`."""
        if best == 0:
            return 1
        others = (0, best + 1 if best < self.num_speculative_tokens else best - 1, 0, best - 1)
        return others[self._num_probes % len(others)]

    def _report(self, num_requests: int, num_drafts: int, per_token: list[float] | None) -> None:
        if self._reported != num_drafts:
            self._reported = num_drafts
            seconds = (None, None) if per_token is None else (per_token[0], min(per_token[1:]))
            self.report(Choice(num_requests, num_drafts, self.gains.acceptance, *seconds))


def _size(num_requests: int) -> int:
    """Return 0 for one request, 1 for 2, 2 for 3 to 4, 3 for 5 to 8, ..."""
    return (num_requests - 1).bit_length()


def _typical(steps: Sequence[Point]) -> Point:
    """Return the mean number of drafts and the median of the seconds."""
    return statistics.fmean(x for x, _ in steps), statistics.median(seconds for _, seconds in steps)
