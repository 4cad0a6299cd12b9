"""Static batching, for comparison: a batch begins together and ends together, as `generate` of old does it.

Whoever has finished keeps its place and computes on, its last token once more in each step, until the whole batch is
done; whoever waits, waits for that. The step itself, the model and the cache are the same as everywhere.
"""

import sys

from minillm.engine.request import Request
from minillm.engine.scheduler import Scheduled, Scheduler


class StaticScheduler(Scheduler):
    """Admits only when nothing runs. `draining` are the finished ones of the batch that is under way."""

    draining: list[Request]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.draining = []

    def release(self, request: Request) -> None:
        if request not in self.running:
            super().release(request)
            return
        self.running.remove(request)
        self.draining.append(request)
        if not self.running:
            self._drain()

    def _schedule_running(self, budget: int) -> tuple[Scheduled, int]:
        scheduled, budget = super()._schedule_running(budget)
        for request in self.draining:
            request.num_computed_tokens = request.num_tokens - 1
            if self.memory.grow(request):
                scheduled.append((request, 1))
        return scheduled, budget

    def _admit(self, budget: int) -> Scheduled:
        # The whole batch begins at once, whatever it takes: there is no budget for the tokens of a step.
        return [] if self.running else super()._admit(sys.maxsize)

    def _make_room(self) -> Request | None:
        """Nobody is preempted for the sake of padding."""
        if not self.draining:
            return super()._make_room()
        self._drain()
        return None

    def _drain(self) -> None:
        for request in self.draining:
            self.memory.free(request)
        self.draining = []
