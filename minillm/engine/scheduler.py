"""The scheduler: how many tokens of which requests the next step computes. Plain Python: no torch, no model, no clock.

There is no prefill phase and no decode phase. Each request has `num_computed_tokens` and wants to reach `num_wanted`.
A step gives out at most `max_num_batched_tokens`: to running requests first, then to waiting ones in order. A prompt
wants many tokens, a decode step one, a decode step with k drafts k + 1. A chunk is the part of a prompt that the
budget allows.

Memory limits how many run. A request is admitted if there are blocks for all of its tokens, and one more for each
running request that can still need one. If a running request finds no block, the newest one is preempted: it loses
its blocks, waits at the head of the queue, and computes its tokens again, except those that the prefix cache still
has.

Source: Yu et al. 2022, "Orca" (OSDI), for scheduling by iteration; Agrawal et al. 2024, "Sarathi-Serve" (arXiv
2403.02310), for chunks next to decodes; vLLM's `v1/core/sched/scheduler.py` for the order of things.
"""

from bisect import insort
from collections.abc import Iterable
from typing import Literal, Protocol

from minillm.engine.request import Request, Status

Scheduled = list[tuple[Request, int]]  # requests, and how many of their next tokens


class Memory(Protocol):
    """The cache as the scheduler sees it (cache/manager.py). A method that returns False has changed nothing."""

    def may_grow(self, request: Request) -> bool: ...

    def admit(self, request: Request, headroom: int = 0) -> bool: ...

    def grow(self, request: Request) -> bool: ...

    def fork(self, parent: Request, child: Request) -> bool: ...

    def free(self, request: Request) -> None: ...


class Scheduler:
    """Continuous batching. `running` and `waiting` are sorted by (priority, arrival); `preempted` are the requests that
    the last step preempted. The policy "fcfs" ignores priorities; under "priority" the lowest number comes first.

    `long_prefill_token_threshold` limits the tokens of one request in a step, unless it is the only request; 0 is off.
    """

    def __init__(
        self,
        memory: Memory,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        enable_chunked_prefill: bool = True,
        long_prefill_token_threshold: int = 0,
        policy: Literal["fcfs", "priority"] = "fcfs",
    ) -> None:
        self.memory, self.max_num_seqs = memory, max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.enable_chunked_prefill = enable_chunked_prefill
        self.long_prefill_token_threshold = long_prefill_token_threshold
        self.policy = policy
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.preempted: list[Request] = []

    @property
    def has_unfinished(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        insort(self.waiting, request, key=self._rank)

    def schedule(self) -> Scheduled:
        """Return the tokens of the next step; empty only if nothing waits and nothing runs.

        Raises `RuntimeError` if no request could ever go on: it would wait forever.
        """
        self.preempted = []
        scheduled, budget = self._schedule_running(self.max_num_batched_tokens)
        if not self.preempted:
            scheduled += self._admit(budget)
        if not scheduled and self.has_unfinished:
            raise RuntimeError(
                f"{len(self.waiting)} requests wait, {len(self.running)} run and none can go on: the next one has "
                f"{(self.running or self.waiting)[0].num_tokens} tokens, max_num_batched_tokens is "
                f"{self.max_num_batched_tokens} and enable_chunked_prefill is {self.enable_chunked_prefill}"
            )
        return scheduled

    def fork(self, parent: Request, children: Iterable[Request]) -> list[Request]:
        """Start `children` on the blocks of `parent`, which has just reached its last token. Children without a place
        wait as others do. Return those that run: they sample from their parent's logits."""
        started = []
        for child in children:
            if len(self.running) < self.max_num_seqs and self.memory.fork(parent, child):
                child.status = Status.RUNNING
                insort(self.running, child, key=self._rank)
                started.append(child)
            else:
                self.add(child)
        return started

    def release(self, request: Request) -> None:
        """Remove a finished or aborted request from its queue, and give its place in the cache back."""
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            self.running.remove(request)
            self.memory.free(request)

    def reset(self, requests: Iterable[Request]) -> None:
        """Start again with these requests waiting; none of them holds a block."""
        self.running, self.preempted, self.waiting = [], [], sorted(requests, key=self._rank)

    def _schedule_running(self, budget: int) -> tuple[Scheduled, int]:
        """Return what running requests compute, and the budget that is left."""
        scheduled, i = Scheduled(), 0
        while i < len(self.running) and budget:
            request, i = self.running[i], i + 1
            num_tokens = self._share(request, budget)
            while not self.memory.grow(request):
                if request.drafts:  # drafts are dropped before anything is preempted for them
                    request.drafts = []
                    num_tokens = self._share(request, budget)
                elif self._make_room() is request:
                    break
            else:
                scheduled.append((request, num_tokens))
                budget -= num_tokens
        return scheduled, budget

    def _admit(self, budget: int) -> Scheduled:
        """Return what the requests that begin now compute."""
        scheduled = Scheduled()
        if not self.waiting:
            return scheduled
        headroom = sum(map(self.memory.may_grow, self.running))
        while self.waiting and budget and len(self.running) < self.max_num_seqs:
            request = self.waiting[0]
            if request.num_tokens > budget and not self.enable_chunked_prefill:
                break
            if not self.memory.admit(request, headroom):
                break
            del self.waiting[0]
            request.status = Status.RUNNING
            insort(self.running, request, key=self._rank)
            num_tokens = self._share(request, budget)
            headroom += self.memory.may_grow(request)
            scheduled.append((request, num_tokens))
            budget -= num_tokens
        return scheduled

    def _share(self, request: Request, budget: int) -> int:
        """Return how many of its missing tokens a request computes in this step; drafts beyond them are dropped."""
        missing = request.num_wanted - request.num_computed_tokens
        limit = budget
        if self.long_prefill_token_threshold and len(self.running) + len(self.waiting) > 1:
            limit = min(limit, self.long_prefill_token_threshold)
        if missing > limit and request.drafts:
            del request.drafts[max(0, len(request.drafts) - (missing - limit)) :]
            missing = request.num_wanted - request.num_computed_tokens
        return min(missing, limit)

    def _make_room(self) -> Request:
        """Preempt the newest running request, and return it."""
        request = self.running.pop()
        self.memory.free(request)
        request.status, request.num_computed_tokens, request.drafts = Status.WAITING, 0, []
        self.preempted.append(request)
        self.add(request)
        return request

    def _rank(self, request: Request) -> tuple[int, ...]:
        return (request.priority if self.policy == "priority" else 0, *request.arrival)
