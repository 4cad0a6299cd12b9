"""Static batching, for comparison: all requests of a batch begin and end together, as in `transformers.generate`.

A finished request keeps its place and its blocks. It computes its last token again in every step until the whole batch
has finished, and waiting requests wait until then. The step, the model and the cache are the same as in continuous
batching.
"""

import sys

from minillm.engine.request import Request, Status
from minillm.engine.scheduler import Scheduled, Scheduler


class StaticScheduler(Scheduler):
    """Admits requests only when none runs. Finished requests of the batch stay in `running`, behind the others."""

    def release(self, request: Request) -> None:
        if request not in self.running:
            super().release(request)
            return
        self.running.remove(request)
        self.running.append(request)
        if all(other.status is Status.FINISHED for other in self.running):
            for other in list(self.running):
                super().release(other)

    def _admit(self, budget: int) -> Scheduled:
        # The whole batch begins at once, so a step has no limit on its tokens.
        return [] if self.running else super()._admit(sys.maxsize)

    def _make_room(self) -> Request:
        """Free the blocks of a finished request if there is one; otherwise preempt a request."""
        if self.running[-1].status is not Status.FINISHED:
            return super()._make_room()
        request = self.running.pop()
        self.memory.free(request)
        return request
