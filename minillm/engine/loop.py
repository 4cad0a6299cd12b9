"""The loop: one place through which any thread reaches an engine, and the thread that can step it.

An engine is not safe to call from several threads. `EngineLoop` owns it and is. Until `start`, a caller that waits for
its request steps the engine itself, one caller at a time: a script needs no thread. After `start` only the loop's own
thread touches the engine. Others leave their calls in its inbox, so that adding or aborting never waits for a step,
and get what is new from the listener that they gave: an asyncio event loop never computes, and never blocks.

Source: the same split into an engine core and its clients is vLLM's (`v1/engine/core.py`, `async_llm.py`).
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from minillm.engine.engine import Engine, StepUnderWayError
from minillm.engine.request import Delta, DeltaReader, RequestOutput
from minillm.sampling import SamplingParams

T = TypeVar("T")
Listener = Callable[[list[Delta]], None]
"""Is called after each step that changed the request, by the thread that stepped; it must not block. An empty list says
that the loop was closed."""


class EngineLoop:
    """Owns `engine`; every method may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine | None = engine
        self._lock = threading.RLock()  # held while a thread calls the engine
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None: stop
        self._listeners: dict[str, tuple[DeltaReader, Listener]] = {}
        self._stepped = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("this LLM is closed: make a new one")
        return self._engine

    def start(self) -> None:
        """Step the engine in a thread of its own from now on. Does nothing if it runs already."""
        with self._stepped:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="minillm-engine", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop the thread after the step it is in, and let the engine go. Unfinished requests are lost."""
        self.stop()
        self._engine = None
        while not self._inbox.empty():
            if (call := self._inbox.get()) is not None:
                call()
        with self._stepped:
            self._stepped.notify_all()
        for _, listener in list(self._listeners.values()):
            listener([])
        self._listeners.clear()

    def stop(self) -> None:
        """End the thread after the step it is in. A thread that computes while Python exits would crash the process."""
        self._inbox.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def add(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prompt: str | None = None,
        priority: int = 0,
        listener: Listener | None = None,
    ) -> "Future[RequestOutput]":
        """Queue a request; the future is its live output, or what `Engine.add_request` raises."""

        def add() -> RequestOutput:
            output = self.engine.add_request(prompt_token_ids, params, prompt=prompt, priority=priority)
            if listener is not None:
                self._listeners[output.request_id] = DeltaReader(output), listener
            return output

        return self._call(add)

    def abort(self, outputs: Sequence[RequestOutput]) -> "Future[None]":
        """End these requests, those that have not finished; the future is done when their blocks are free."""

        def abort() -> None:
            for output in outputs:
                if self._engine is not None and not output.finished:
                    self._engine.abort(output.request_id)
                    self._tell(output)

        return self._call(abort)

    def replace(self, engine: Engine, settings: Mapping[str, int | str]) -> "Future[None]":
        """Go on with another engine, which takes the unfinished requests over; the future is done, or has what
        `Engine.take_over` raises, before the next step. `settings` are written into the trace."""

        def replace() -> None:
            engine.take_over(self.engine, settings)
            self._engine = engine

        return self._call(replace)

    def wait(self, outputs: Sequence[RequestOutput], until: Callable[[], bool]) -> None:
        """Return after the step that makes `until()` true; it is called after each step.

        Raises the error of a step that ended one of `outputs`; errors of other callers' requests are theirs.
        """
        while not until():
            if self._thread is None:
                self._step_for(outputs)
            else:
                with self._stepped:
                    self._stepped.wait_for(lambda: self._engine is None or until())
                self.engine  # noqa: B018 – raises if it was closed

    def _step_for(self, outputs: Sequence[RequestOutput]) -> None:
        try:
            self._step()
        except StepUnderWayError:
            raise
        except Exception as error:
            others = self._engine is not None and self._engine.last_error is error
            if not others or any(output.error is error for output in outputs):
                raise

    def _call(self, function: Callable[[], T]) -> "Future[T]":
        """Run a function that calls the engine: now, or in the thread before its next step."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(self._guarded(function))
            except BaseException as error:
                future.set_exception(error)

        if self._thread is None or self._engine is None or self._thread is threading.current_thread():
            run()
        else:
            self._inbox.put(run)
        return future

    def _guarded(self, function: Callable[[], T]) -> T:
        """Call the engine alone, and leave it usable whatever is raised at whatever moment."""
        with self._lock:
            try:
                return function()
            except StepUnderWayError:
                raise
            except BaseException:
                if self._engine is not None:
                    self._engine.recover()
                raise

    def _step(self) -> None:
        """One step, and its news to the listeners; after an error, to all that it may concern."""
        with self._lock:
            try:
                for output in self._guarded(self.engine.step):
                    self._tell(output)
            except BaseException:
                for reader, _ in list(self._listeners.values()):
                    self._tell(reader.output)
                raise

    def _tell(self, output: RequestOutput) -> None:
        reader, listener = self._listeners.get(output.request_id, (None, None))
        if reader is None or listener is None:
            return
        deltas, state = reader.peek()
        if deltas:
            # One statement, between whose parts no Ctrl-C comes: no delta is lost, none is told twice.
            reader.state, _ = state, listener(deltas)
        if output.finished:
            self._listeners.pop(output.request_id, None)

    def _run(self) -> None:
        """The thread: calls from the inbox, then a step, for as long as there is something to do."""
        while True:
            try:
                call = self._inbox.get(block=not self.engine.has_unfinished)
                if call is None:
                    return
                call()
            except Empty:
                # An error of the step has ended the requests that it concerns: their callers raise it.
                with suppress(Exception):
                    self._step()
            with self._stepped:
                self._stepped.notify_all()
