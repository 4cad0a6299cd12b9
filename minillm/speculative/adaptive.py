"""Adaptive speculation: as many drafts as pay, by the measured costs, and none if none pays.

With k drafts, a step gives a request 1 + s(1) a + s(2) a^2 + ... + s(k) a^k tokens on average: a is the share of the
judged drafts that the model accepts, and s(j) is the share of the proposals that have j drafts or more. The step costs
C(k) seconds, drafting included. The best k has the most tokens per second. All of a, s and C are measured while the
engine runs, C for each size of the batch: verifying drafts costs little for one request and much for a large batch.

Texts change, so now and then a few steps use another k than the best one. Such a probe waits until its expected loss is
a hundredth of the time since the last one.

Source: Leviathan, Kalman, Matias 2023 (arXiv 2211.17192), section 3, for the number of tokens; Liu et al. 2024,
"Optimizing Speculative Decoding for Serving Large Language Models Using Goodput" (arXiv 2406.14066), for the choice.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from minillm.engine.proposer import Computed, Part, Proposer
from minillm.engine.request import Request, Status
from minillm.sampling import Drafts

KEEP = 0.98  # the weight of the past after one more proposal: about the last 50 count
SAMPLES = 12  # the newest measurements of a cost, of which the mean is taken
ENOUGH = 3  # measurements before a cost is used
OUTLIER = 3.0  # times the median: a measurement above counts as this much
PROBE_STEPS = 4  # the first one of a draft model computes what its cache lacks, and is not measured
PROBE_SHARE = 0.01  # of the time may be lost by probes


@dataclass(frozen=True, slots=True)
class Choice:
    """A number of drafts, and why: the fields of `minillm.measure.trace.DraftChoice` without its time."""

    num_requests: int
    num_drafts: int
    acceptance: float
    seconds_without: float | None
    seconds_with: float | None


class Gains:
    """How many tokens a step gives to a request, from what became of recent drafts."""

    def __init__(self, most: int) -> None:
        self.accepted = self.judged = 0.0
        self.proposals, self.long_enough = [0.0] * most, [0.0] * most  # that could have j drafts, and that had

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

    def tokens(self, num_drafts: int) -> float:
        """Return the expected number of tokens of a step with up to `num_drafts` drafts."""
        total, reached = 1.0, 1.0
        for proposals, long_enough in zip(self.proposals[:num_drafts], self.long_enough, strict=False):
            reached *= self.acceptance
            total += reached * (long_enough / proposals if proposals else 1.0)
        return total


class Costs:
    """The seconds of a step for each number of drafts, for batches of 1, 2, 3-4, 5-8, ... requests."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._seconds: dict[int, dict[int, deque[float]]] = {}  # by size of the batch, then by number of drafts

    def add(self, num_requests: int, num_drafts: int, seconds: float) -> None:
        measured = self._seconds.setdefault(_size(num_requests), {})
        measured.setdefault(num_drafts, deque(maxlen=SAMPLES)).append(seconds)

    def missing(self, num_requests: int) -> int | None:
        """Return the number of drafts whose cost is not known yet in such a batch: the largest one, 0, or None."""
        measured = self._seconds.get(_size(num_requests), {})
        for num_drafts in (self.most, 0):
            if len(measured.get(num_drafts, ())) < ENOUGH:
                return num_drafts
        return None

    def curve(self, num_requests: int) -> list[float]:
        """Return the cost of 0, 1, ... drafts in such a batch. Those between two measured ones lie on a line."""
        measured = self._seconds[_size(num_requests)]
        known = {k: _mean(values) for k, values in measured.items() if len(values) >= ENOUGH}
        return [_between(known, k) for k in range(self.most + 1)]


@dataclass(slots=True)
class _Plan:
    """The drafts that the next step verifies, of at most `limit` each, and the seconds that they took."""

    limit: int
    seconds: float
    measured: bool
    proposals: list[tuple[Request, int, int]] = field(
        default_factory=list
    )  # with its numbers of tokens and drafts

    def was_computed(self, computed: Computed) -> bool:
        """Return whether the step computed this and nothing else, such as a part of a prompt."""
        num_drafts = sum(num_drafts for _, _, num_drafts in self.proposals)
        return (computed.num_requests, computed.num_tokens) == (
            len(self.proposals),
            len(self.proposals) + num_drafts,
        )


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
        self.gains, self.costs = Gains(self.num_speculative_tokens), Costs(self.num_speculative_tokens)
        self._plan: _Plan | None = None
        self._probe, self._probe_steps = 0, 0  # the number of drafts of the probe, and its remaining steps
        self._credit = 0.0  # seconds that a probe may lose
        self._reported: tuple[int, int] | None = None

    def propose(self, computed: Computed) -> Sequence[Drafts]:
        """Return the drafts of each part, at most `limit` and at most the number that pays."""
        self._learn(computed)
        asking = [part for part in computed.parts if part.limit]
        most = self._choose(len(asking)) if asking else 0
        parts = [replace(part, limit=min(part.limit, most)) for part in computed.parts]
        measured = all(part.limit >= most and not (most and self._lags(part)) for part in asking)
        start = self.clock()
        if most or self.taps is not None:
            drafts = self.proposer.propose(replace(computed, parts=parts))
        else:
            drafts = [Drafts([]) for _ in parts]
        self._plan = _Plan(most, self.clock() - start, measured)
        for part, proposed in zip(computed.parts, drafts, strict=True):
            if part.limit:
                given = part.request, part.request.num_tokens, len(proposed.token_ids)
                self._plan.proposals.append(given)
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
        if plan.measured:
            self.costs.add(len(plan.proposals), plan.limit, computed.seconds + plan.seconds)
        for request, num_tokens, num_drafts in plan.proposals:
            if plan.limit and request.status is Status.RUNNING:  # the last step of a request is cut at its end
                num_accepted = request.num_tokens - num_tokens - 1
                self.gains.add(num_accepted, num_drafts, plan.limit)

    def _choose(self, num_requests: int) -> int:
        """Return the number of drafts for this step."""
        missing = self.costs.missing(num_requests)
        if missing is not None:
            self._report(num_requests, missing, None)
            return missing
        costs = self.costs.curve(num_requests)
        per_token = [seconds / self.gains.tokens(k) for k, seconds in enumerate(costs)]
        best = min(range(len(costs)), key=per_token.__getitem__)
        if self._probe_steps == 0:
            self._credit += PROBE_SHARE * costs[best]
            other = self.num_speculative_tokens if best == 0 else 0
            loss = costs[other] - self.gains.tokens(other) * per_token[best]
            if self._credit >= PROBE_STEPS * max(loss, PROBE_SHARE * costs[best] * PROBE_STEPS):
                self._probe, self._probe_steps, self._credit = other, PROBE_STEPS, 0.0
        chosen = best
        if self._probe_steps:
            self._probe_steps -= 1
            chosen = self._probe
        self._report(num_requests, chosen, per_token)
        return chosen

    def _report(self, num_requests: int, num_drafts: int, per_token: list[float] | None) -> None:
        if self._reported == (num_requests, num_drafts):
            return
        self._reported = num_requests, num_drafts
        without, with_drafts = (None, None) if per_token is None else (per_token[0], min(per_token[1:]))
        self.report(Choice(num_requests, num_drafts, self.gains.acceptance, without, with_drafts))


def _size(num_requests: int) -> int:
    """Return 0 for one request, 1 for 2, 2 for 3 to 4, 3 for 5 to 8, ..."""
    return (num_requests - 1).bit_length()


def _mean(values: Sequence[float]) -> float:
    """Return the mean. An outlier, such as a step that another program interrupted, counts less."""
    most = OUTLIER * statistics.median(values)
    return statistics.fmean(min(value, most) for value in values)


def _between(known: dict[int, float], k: int) -> float:
    """Return the value at k on the line between its neighbours in `known`, which has a value below and one above."""
    below, above = max(x for x in known if x <= k), min(x for x in known if x >= k)
    share = (k - below) / (above - below) if above > below else 0.0
    return known[below] + share * (known[above] - known[below])
