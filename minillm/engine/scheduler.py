"""The scheduler chooses the requests of the next step, and how many tokens of each. Plain Python: no torch, no clock.

There is no separate prefill phase or decode phase. Each request has computed `num_computed_tokens` and has to reach
`num_wanted`. A step has a budget of `max_num_batched_tokens` tokens. Running requests come first, then waiting requests
in order. A prompt asks for many tokens, a decode step for one, and a decode step with k drafts for k + 1. If the budget
does not allow a whole prompt, the step computes a part of it, a chunk.

Memory limits the number of running requests. The scheduler admits a request if there are free blocks for all of its
tokens, plus one block for each running request that can still need one. If a running request needs a block and none is
free, the scheduler preempts the newest running request. That request loses its blocks and returns to the waiting queue.
Later it computes its tokens again, except those that are still in the prefix cache.

Source: Yu et al. 2022, "Orca" (OSDI), for scheduling by iteration; Agrawal et al. 2024, "Sarathi-Serve" (arXiv
2403.02310), for chunks next to decodes; vLLM's `v1/core/sched/scheduler.py` for the order of these decisions.
"""

from bisect import insort
from collections.abc import Iterable
from typing import Literal, Protocol

from minillm.engine.request import Request, Status

Scheduled = list[tuple[Request, int]]  # requests, and how many of its next tokens each computes


class Memory(Protocol):
    """The methods of the cache that the scheduler calls (cache/manager.py). One that returns False changed nothing."""

    def may_grow(self, request: Request) -> bool: ...

    def admit(self, request: Request, headroom: int = 0) -> bool: ...

    def grow(self, request: Request) -> bool: ...

    def fork(self, parent: Request, child: Request) -> bool: ...

    def free(self, request: Request) -> None: ...


class Scheduler:
    """Continuous batching. `running` and `waiting` are sorted by (priority, arrival).

    The policy "fcfs" ignores priorities; under "priority" the lowest number comes first. `preempted` lists the requests
    that the last step preempted. `long_prefill_token_threshold` limits the tokens of one request in a step, unless it
    is the only request; 0 means no limit.
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
        """Return the requests of the next step with their numbers of tokens; empty only if there are no requests.

        Raises `RuntimeError` if there are requests but none of them can ever continue.
        """
        self.preempted = []
        scheduled, budget = self._schedule_running(self.max_num_batched_tokens)
        if not self.preempted:
            scheduled += self._admit(budget)
        if not scheduled and self.has_unfinished:
            raise RuntimeError(
                f"{len(self.waiting)} requests wait, {len(self.running)} run, and none can continue. The next one has "
                f"{(self.running or self.waiting)[0].num_tokens} tokens, max_num_batched_tokens is "
                f"{self.max_num_batched_tokens} and enable_chunked_prefill is {self.enable_chunked_prefill}. "
                "Raise max_num_batched_tokens, or set enable_chunked_prefill=True"
            )
        return scheduled

    def fork(self, parent: Request, children: Iterable[Request]) -> list[Request]:
        """Start `children` on the blocks of `parent`, which has just computed its last known token.

        Return the children that run now; they sample from their parent's logits. The others join the waiting queue.
        """
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
        """Remove a finished or aborted request from its queue, and free its blocks."""
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            self.running.remove(request)
            self.memory.free(request)

    def reset(self, requests: Iterable[Request]) -> None:
        """Start again with these requests in the waiting queue. None of them may hold a block."""
        self.running, self.preempted, self.waiting = [], [], sorted(requests, key=self._rank)

    def _schedule_running(self, budget: int) -> tuple[Scheduled, int]:
        """Return the running requests that this step computes, with their tokens, and the remaining budget."""
        scheduled, i = Scheduled(), 0
        while i < len(self.running) and budget:
            request, i = self.running[i], i + 1
            num_tokens = self._share(request, budget)
            while not self.memory.grow(request):
                if request.drafts:  # drop the drafts before preempting a request for them
                    request.drafts = []
                    num_tokens = self._share(request, budget)
                elif self._make_room() is request:
                    break
            else:
                scheduled.append((request, num_tokens))
                budget -= num_tokens
        return scheduled, budget

    def _admit(self, budget: int) -> Scheduled:
        """Admit waiting requests in order, as long as budget and memory allow. Return them with their tokens."""
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
        """Return the number of missing tokens that `request` computes in this step. Drop the drafts beyond them."""
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
