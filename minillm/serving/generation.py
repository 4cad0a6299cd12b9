"""One HTTP request at the engine: its prompts are queued, its tokens come back, and its end frees everything.

Tokens are made in the thread of an engine and sent by the event loop. A `Mailbox` lies between the two. The engine's
thread puts new parts into it and never waits. The event loop takes all parts at once, merged into one per sample, so a
slow reader gets fewer and longer parts. A mailbox never holds more than the output of its own request.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from minillm.engine.loop import EngineDeadError, Listener
from minillm.engine.request import Delta, RequestOutput
from minillm.sampling import Logprob, SamplingParams
from minillm.serving.registry import Registry, Replica

Encoded = tuple[str | None, list[int]]  # the text of a prompt, if it has one, and its token ids
Part = tuple[int, Delta]  # the number of a prompt, and the new part of one of its samples


class Notifier:
    """Sets asyncio events from other threads. All events of an engine's step wake the event loop once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._scheduled = loop, False
        self._events: deque[asyncio.Event] = deque()

    def notify(self, event: asyncio.Event) -> None:
        self._events.append(event)
        if not self._scheduled:
            self._scheduled = True
            with suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self._set_all)

    def _set_all(self) -> None:
        self._scheduled = False
        while self._events:
            self._events.popleft().set()


class Mailbox:
    """Takes parts from an engine's thread to the event loop. `only_ends` drops all but the last of each sample."""

    def __init__(self, notifier: Notifier, only_ends: bool) -> None:
        self._notifier, self._only_ends = notifier, only_ends
        self._parts: deque[Part | None] = deque()  # None: the engine's thread has ended
        self._news = asyncio.Event()

    def listener(self, prompt: int) -> Listener:
        """Return what the engine's thread calls with the new parts of a prompt's samples."""

        def listen(deltas: list[Delta]) -> None:
            if deltas and self._only_ends:
                deltas = [delta for delta in deltas if delta.finish_reason is not None]
                if not deltas:
                    return
            self._parts.extend([(prompt, delta) for delta in deltas] or [None])
            self._notifier.notify(self._news)

        return listen

    async def take(self) -> list[Part]:
        """Return everything that came since the last call, one part per sample; wait if there is nothing."""
        while not self._parts:
            self._news.clear()
            await self._news.wait()
        parts = [self._parts.popleft() for _ in range(len(self._parts))]
        if None in parts:
            raise EngineDeadError("the engine was stopped")
        return merge([part for part in parts if part is not None])


def merge(parts: Sequence[Part]) -> list[Part]:
    """Join the parts of each sample into one, in order of their samples' first parts."""
    if len(parts) == 1:
        return list(parts)
    of_sample: dict[tuple[int, int], list[Delta]] = {}
    for prompt, delta in parts:
        of_sample.setdefault((prompt, delta.index), []).append(delta)
    return [(prompt, _join(deltas)) for (prompt, _), deltas in of_sample.items()]


def _join(deltas: Sequence[Delta]) -> Delta:
    last = deltas[-1]
    if len(deltas) == 1:
        return last
    logprobs: list[dict[int, Logprob]] | None = None
    if last.logprobs is not None:
        logprobs = [one for delta in deltas for one in delta.logprobs or ()]
    return Delta(
        last.index,
        "".join(delta.text for delta in deltas),
        [token_id for delta in deltas for token_id in delta.token_ids],
        last.finish_reason,
        last.stop_reason,
        logprobs,
    )


class Generation:
    """The prompts of one HTTP request while engines work on them. `outputs` are live, in the order of the prompts."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.outputs: list[RequestOutput] = []
        self._mailbox, self._replicas = mailbox, list[Replica]()

    @classmethod
    async def start(
        cls,
        registry: Registry,
        name: str,
        prompts: Sequence[Encoded],
        params: SamplingParams,
        priority: int,
        mailbox: Mailbox,
    ) -> "Generation":
        """Queue all prompts, or none. Raises `OverloadedError`, `UnavailableError`, or the engine's own refusal."""
        self = cls(mailbox)
        adding: list[tuple[Replica, Future[RequestOutput]]] = []
        try:
            for i, (text, ids) in enumerate(prompts):
                replica = registry.choose(name, ids)
                replica.check_admission()
                future = replica.enqueue(
                    ids, params, prompt=text, priority=priority, listener=mailbox.listener(i)
                )
                adding.append((replica, future))
            for replica, future in adding:
                self.outputs.append(await asyncio.wrap_future(future))
                self._replicas.append(replica)
        except BaseException:
            for replica, future in adding:
                future.add_done_callback(partial(_release_added, replica))
            raise
        return self

    async def parts(self) -> AsyncIterator[list[Part]]:
        """Yield new parts until all samples have ended. Raises the error of a sample that failed."""
        ended, num_samples = 0, sum(len(output.outputs) for output in self.outputs)
        while ended < num_samples:
            parts = await self._mailbox.take()
            for prompt, delta in parts:
                ended += delta.finish_reason is not None
                if delta.finish_reason == "error":
                    error = self.outputs[prompt].outputs[delta.index].error
                    assert error is not None
                    raise self._replicas[prompt].explain(error)
            yield parts

    async def finish(self) -> list[RequestOutput]:
        """Wait for all samples, and return the outputs."""
        async for _ in self.parts():
            pass
        return self.outputs

    def release(self) -> None:
        """Abort the requests that have not finished. Must be called once the HTTP request has ended in any way."""
        for replica, output in zip(self._replicas, self.outputs, strict=True):
            replica.release([output])


def _release_added(replica: Replica, adding: Future[RequestOutput]) -> None:
    if not adding.cancelled() and adding.exception() is None:
        replica.release([adding.result()])
