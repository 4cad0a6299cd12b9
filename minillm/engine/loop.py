"""The loop: a thread-safe interface to an engine, and the thread that can step it.

An engine is not thread-safe. `EngineLoop` owns the engine, and its methods may be called from any thread. Before
`start`, a caller that waits for its request steps the engine itself, one caller at a time, so a script needs no extra
thread. After `start`, only the loop's own thread calls the engine. Other threads put their calls into its inbox, so
adding or aborting a request never waits for a step. New tokens go to the listener of a request. An asyncio event loop
therefore never computes and never blocks.

Source: vLLM separates its engine core from its clients in the same way (`v1/engine/core.py`, `async_llm.py`).
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
"""Called after each step that changed the request, by the thread that stepped. It must not block. An empty list means
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
        """Step the engine in its own thread from now on. Do nothing if that thread already runs."""
        with self._stepped:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="minillm-engine", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop the thread after its current step, and release the engine. Unfinished requests are lost."""
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
        """Stop the thread after its current step. A thread that computes while Python exits would crash the process."""
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
        """Queue a request. The future has its live output, or the error of `Engine.add_request`."""

        def add() -> RequestOutput:
            output = self.engine.add_request(prompt_token_ids, params, prompt=prompt, priority=priority)
            if listener is not None:
                self._listeners[output.request_id] = DeltaReader(output), listener
            return output

        return self._call(add)

    def abort(self, outputs: Sequence[RequestOutput]) -> "Future[None]":
        """End these requests if they have not finished. The future is done when their blocks are free."""

        def abort() -> None:
            for output in outputs:
                if self._engine is not None and not output.finished:
                    self._engine.abort(output.request_id)
                    self._tell(output)

        return self._call(abort)

    def replace(self, engine: Engine, settings: Mapping[str, int | str]) -> "Future[None]":
        """Continue with another engine, which takes over the unfinished requests.

        The future is done before the next step, or has the error of `Engine.take_over`. `settings` are written into
        the trace.
        """

        def replace() -> None:
            engine.take_over(self.engine, settings)
            self._engine = engine

        return self._call(replace)

    def wait(self, outputs: Sequence[RequestOutput], until: Callable[[], bool]) -> None:
        """Wait until `until()` is true; it is called after each step.

        Raises the error of a step if it ended one of `outputs`. An error of other callers' requests is raised there.
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
        """Call `function` while no other thread calls the engine. If it raises, recover the engine."""
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
        """Run one step and call the listeners of its requests; after an error, call all listeners."""
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
            # One statement, so that Ctrl-C cannot come in between: no delta is lost or sent twice.
            reader.state, _ = state, listener(deltas)
        if output.finished:
            self._listeners.pop(output.request_id, None)

    def _run(self) -> None:
        """Run the thread: take calls from the inbox, and step while requests are unfinished and the inbox is empty."""
        while True:
            try:
                call = self._inbox.get(block=not self.engine.has_unfinished)
                if call is None:
                    return
                call()
            except Empty:
                # An error of the step has ended its requests, and `wait` raises it for their callers.
                with suppress(Exception):
                    self._step()
            with self._stepped:
                self._stepped.notify_all()
