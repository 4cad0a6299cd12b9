"""The loop: a thread-safe interface to an engine, and the thread that can step it.

An engine is not thread-safe. `EngineLoop` owns the engine, and its methods may be called from any thread. Before
`start`, a caller that waits for its request steps the engine itself, one caller at a time, so a script needs no extra
thread. After `start`, only the loop's own thread calls the engine. Other threads put their calls into its inbox, so
adding or aborting a request never waits for a step. New tokens go to the listener of a request. An asyncio event loop
therefore never computes and never blocks.

If something other than a request ends the thread, every unfinished request ends with the error, and `alive` is False.
The owner can then continue with a new engine (`restart`).

Source: vLLM separates its engine core from its clients in the same way (`v1/engine/core.py`, `async_llm.py`).
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from minillm.engine.engine import Engine, StepUnderWayError
from minillm.engine.request import Delta, DeltaReader, RequestOutput
from minillm.measure.trace import Trace
from minillm.sampling import SamplingParams

T = TypeVar("T")
Listener = Callable[[list[Delta]], None]
"""Called after each step that changed the request, by the thread that stepped. It must not block. An empty list means
that the loop was closed, or that its thread ended."""


class EngineDeadError(RuntimeError):
    """An unexpected error ended the engine's thread, and no new engine has taken its place."""


class EngineLoop:
    """Owns `engine`; every method may be called from any thread.

    `turns` is held during each step, so engines that share it run their steps alternately. `on_death` is called at the
    end of a thread that did not end by `stop`, with the error; it may call `restart`.
    """

    turns: AbstractContextManager[object] = nullcontext()
    on_death: Callable[[BaseException], None] | None = None

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine | None = engine
        self._death: BaseException | None = None  # the error that ended the thread
        self._lock = threading.RLock()  # held while a thread calls the engine
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None: stop
        self._listeners: dict[str, tuple[DeltaReader, Listener]] = {}
        self._step_errors: deque[BaseException] = deque(maxlen=8)
        self._stepped = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def engine(self) -> Engine:
        if self._engine is None and self._death is not None:
            raise EngineDeadError(f"the engine's thread ended with {self._death!r}: call rebuild()")
        if self._engine is None:
            raise RuntimeError("this LLM is closed: make a new one")
        return self._engine

    @property
    def alive(self) -> bool:
        """Return whether the engine can serve requests: it was not closed, and its thread did not end."""
        return self._engine is not None

    def blames_engine(self, error: BaseException) -> bool:
        """Return whether the error of a request came from a step as a whole, and not from the request."""
        return isinstance(error, EngineDeadError) or any(error is one for one in self._step_errors)

    def start(self) -> None:
        """Step the engine in its own thread from now on. Do nothing if that thread already runs."""
        with self._stepped:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="minillm-engine", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop the thread after its current step, and release the engine. Unfinished requests are lost."""
        self.stop()
        self._engine, self._death = None, None
        self._release_callers()

    def restart(self, engine: Engine) -> None:
        """Continue with `engine` after the thread has ended. Requests of the old one have ended with its error."""
        with self._stepped:
            self._engine, self._death, self._thread = engine, None, None
        self.start()

    def _release_callers(self) -> None:
        """Let all calls in the inbox fail, and tell all threads and listeners that wait."""
        self._fail_calls()
        with self._stepped:
            self._stepped.notify_all()
        for _, listener in list(self._listeners.values()):
            listener([])
        self._listeners.clear()

    def _fail_calls(self) -> None:
        with suppress(Empty):
            while True:
                if (call := self._inbox.get_nowait()) is not None:
                    call()

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

    def watch(self, trace: Trace | None) -> "Future[None]":
        """Call `Engine.watch` before the next step."""
        return self._call(lambda: self.engine.watch(trace))

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
                if not until():
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
            if not self.alive:  # the thread ended before it could take the call
                self._fail_calls()
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
                with self.turns:
                    outputs = self._guarded(self.engine.step)
                for output in outputs:
                    self._tell(output)
            except BaseException as error:
                self._step_errors.append(error)
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
        """Run the thread. If an error ends it, end every request with that error, and report it."""
        try:
            self._serve()
        except BaseException as error:
            self._die(error)

    def _serve(self) -> None:
        """Take calls from the inbox, and step while requests are unfinished and the inbox is empty."""
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

    def _die(self, error: BaseException) -> None:
        engine, self._death, self._engine = self._engine, error, None
        with suppress(Exception):
            if engine is not None:
                dead = EngineDeadError(f"the engine's thread ended with {error!r}")
                dead.__cause__ = error
                for output in engine.fail_all(dead):
                    self._tell(output)
        self._release_callers()
        if self.on_death is not None:
            self.on_death(error)
