"""Who computes how many tokens in this step. Plain Python: no torch, no model, no clock.

There is no prefill phase and no decode phase. Each request has `num_computed_tokens` and wants to reach `num_tokens`; a
step hands out `max_num_batched_tokens` among them, to running requests first, then to waiting ones in their order. A
prompt is one large want, a decode step a want of one, a chunk what the budget left.

Memory decides who runs. A request is admitted when there are blocks for all of its tokens, and one more for each
request that runs already and will soon want one. If one that runs still finds none, the newest is preempted: it loses
its blocks, waits at the head of the queue, and computes its tokens again, unless the prefix cache still has them.

Source: Yu et al. 2022, "Orca" (OSDI), for scheduling by iteration; Agrawal et al. 2024, "Sarathi-Serve" (arXiv
2403.02310), for chunks beside decodes; vLLM's `v1/core/sched/scheduler.py` for the order of things.
"""

from bisect import insort
from collections.abc import Iterable
from typing import Literal, Protocol

from minillm.engine.request import Request, Status

Scheduled = list[tuple[Request, int]]  # who, and how many of its next tokens


class Memory(Protocol):
    """The cache as the scheduler knows it (cache/manager.py). What cannot be had changes nothing and returns False."""

    def admit(self, request: Request, headroom: int = 0) -> bool: ...

    def grow(self, request: Request) -> bool: ...

    def fork(self, parent: Request, child: Request) -> bool: ...

    def free(self, request: Request) -> None: ...


class Scheduler:
    """Continuous batching. `running` and `waiting` stand in order of (priority, arrival), `preempted` are those of the
    last step. `policy` "fcfs" knows one priority only; under "priority" the lowest number comes first.

    `long_prefill_token_threshold` caps the tokens of one request in a step; 0 is no cap.
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
        """The tokens of the next step; empty only when nothing waits and nothing runs.

        Raises `RuntimeError` where no request could ever go on: waiting would be for ever.
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
        """Start `children` on the blocks of `parent`, which has just reached its last token; those for whom there is
        no place wait like others. Returns the ones that run, and so sample from their parent's logits."""
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
        """Take a finished or aborted request out, wherever it stands, and give its place in the cache back."""
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            self.running.remove(request)
            self.memory.free(request)

    def _schedule_running(self, budget: int) -> tuple[Scheduled, int]:
        """What those that run compute, and the budget that is left."""
        scheduled, i = Scheduled(), 0
        while i < len(self.running) and budget:
            request, i = self.running[i], i + 1
            num_tokens = self._share(request, budget)
            while not self.memory.grow(request):
                if self._make_room() is request:
                    break
            else:
                scheduled.append((request, num_tokens))
                budget -= num_tokens
        return scheduled, budget

    def _admit(self, budget: int) -> Scheduled:
        """What those compute that begin now."""
        scheduled = Scheduled()
        while self.waiting and budget and len(self.running) < self.max_num_seqs:
            request = self.waiting[0]
            if request.num_tokens > budget and not self.enable_chunked_prefill:
                break
            if not self.memory.admit(request, headroom=len(self.running)):
                break
            del self.waiting[0]
            num_tokens = self._share(request, budget)
            request.status = Status.RUNNING
            insort(self.running, request, key=self._rank)
            scheduled.append((request, num_tokens))
            budget -= num_tokens
        return scheduled

    def _share(self, request: Request, budget: int) -> int:
        """How many of a request's missing tokens this step computes."""
        most = self.long_prefill_token_threshold or budget
        return min(request.num_tokens - request.num_computed_tokens, most, budget)

    def _make_room(self) -> Request | None:
        """Preempt the newest of those that run, and return it."""
        request = self.running.pop()
        self.memory.free(request)
        request.status, request.num_computed_tokens = Status.WAITING, 0
        request.num_preemptions += 1
        self.preempted.append(request)
        self.add(request)
        return request

    def _rank(self, request: Request) -> tuple[int, ...]:
        return (request.priority if self.policy == "priority" else 0, *request.arrival)
