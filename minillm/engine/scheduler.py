"""Who computes how many tokens in this step. Plain Python: no torch, no model, no clock.

There is no prefill phase and no decode phase. Each request has `num_computed_tokens` and wants to reach
`num_tokens`; a step hands out `max_num_batched_tokens` among them, to running requests first, then to waiting
ones in order of arrival. A prompt is one large want, a decode step a want of one, a chunk what the budget left.
"""

from collections import deque
from typing import Protocol

from minillm.engine.request import Request, Status

Scheduled = list[tuple[Request, int]]  # who, and how many of its next tokens


class Allocator(Protocol):
    """Hands out places in the cache. `allocate` returns None when there is none left."""

    def allocate(self) -> int | None: ...

    def free(self, row: int) -> None: ...


class Scheduler:
    """First come, first served, over a cache with one block a request."""

    def __init__(
        self,
        allocator: Allocator,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        enable_chunked_prefill: bool = True,
    ) -> None:
        self.allocator, self.max_num_seqs = allocator, max_num_seqs
        self.max_num_batched_tokens, self.enable_chunked_prefill = (
            max_num_batched_tokens,
            enable_chunked_prefill,
        )
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    @property
    def has_unfinished(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def schedule(self) -> Scheduled:
        """The tokens of the next step; empty only when nothing waits and nothing runs.

        Raises `RuntimeError` where no request could ever go on: waiting would be for ever.
        """
        budget, scheduled = self.max_num_batched_tokens, Scheduled()
        for request in self.running:
            num_tokens = min(request.num_tokens - request.num_computed_tokens, budget)
            if num_tokens:
                scheduled.append((request, num_tokens))
                budget -= num_tokens
        while self.waiting and budget and len(self.running) < self.max_num_seqs:
            wanted = self.waiting[0].num_tokens
            if wanted > budget and not self.enable_chunked_prefill:
                break
            row = self.allocator.allocate()
            if row is None:
                break
            request = self.waiting.popleft()
            request.status, request.block_table = Status.RUNNING, [row]
            self.running.append(request)
            num_tokens = min(wanted, budget)
            scheduled.append((request, num_tokens))
            budget -= num_tokens
        if not scheduled and self.has_unfinished:
            raise RuntimeError(
                f"{len(self.waiting)} requests wait, {len(self.running)} run and none can go on: the next one has "
                f"{(self.running or self.waiting)[0].num_tokens} tokens, max_num_batched_tokens is "
                f"{self.max_num_batched_tokens} and enable_chunked_prefill is {self.enable_chunked_prefill}"
            )
        return scheduled

    def release(self, request: Request) -> None:
        """Take a finished or aborted request out, wherever it stands, and give its place in the cache back."""
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            self.running.remove(request)
            self.allocator.free(request.block_table.pop())
