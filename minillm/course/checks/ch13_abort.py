"""Chapter 13, serving: the checks of 13.5. Time is simulated, so no check depends on a clock."""

import asyncio
import inspect
import selectors
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch13 import ABORT

BLOCKS = 3  # that each request holds
SOON, LATER = (
    0.2,
    10.0,
)  # simulated seconds after each event: an abort must come soon, everything else until later


class Selector(selectors.DefaultSelector):
    """Never waits: it passes the time that it should wait to `skip`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            self.now += timeout or 0.0
        return found


class SimulatedTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer. `asyncio.sleep(10)` takes no real time."""

    def __init__(self) -> None:
        self._simulated = Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now


class EngineError(RuntimeError):
    """The error of a request that the engine could not compute."""


class FakeRequest:
    """A request whose pieces the check produces. It notes every abort."""

    def __init__(self, engine: "FakeEngine") -> None:
        self.engine, self.finished = engine, False
        self.state = "waiting"
        self._pieces: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        self._ended: BaseException | None = None

    def __aiter__(self) -> "FakeRequest":
        return self

    async def __anext__(self) -> str:
        if self._ended is not None:
            raise self._ended
        piece = await self._pieces.get()
        if isinstance(piece, str):
            return piece
        self._ended = piece or StopAsyncIteration()
        raise self._ended

    def abort(self) -> None:
        self.engine.aborted.append(self.state)
        if not self.finished:
            self.end("aborted")

    def produce(self, piece: str) -> None:
        if not self.finished:
            self.state = "running"
            self._pieces.put_nowait(piece)

    def end(self, state: str, error: BaseException | None = None) -> None:
        if not self.finished:
            self.state, self.finished = state, True
            self.engine.blocks -= BLOCKS
            self._pieces.put_nowait(error)


class FakeEngine:
    """Counts the blocks of its requests. With `refusal`, it refuses every request."""

    def __init__(self, refusal: BaseException | None = None) -> None:
        self.refusal, self.blocks = refusal, 0
        self.requests, self.aborted = list[FakeRequest](), list[str]()

    def submit(self, prompt: str) -> FakeRequest:
        if self.refusal is not None:
            raise self.refusal
        self.blocks += BLOCKS
        self.requests.append(FakeRequest(self))
        return self.requests[-1]


class FakeClient:
    """A client that takes pieces, unless it is `slow`, until it leaves."""

    def __init__(self) -> None:
        self.sent, self.late = list[str](), 0
        self.slow = False
        self.num_sending = self.most_sending = 0
        self.has_left = asyncio.Event()
        self.ready = asyncio.Event()

    async def send(self, piece: str) -> None:
        if self.has_left.is_set():
            self.late += 1
            raise ConnectionError("the client has closed its connection")
        self.sent.append(piece)
        self.num_sending += 1
        self.most_sending = max(self.most_sending, self.num_sending)
        try:
            while self.slow:
                self.ready.clear()
                await self.ready.wait()
                if self.has_left.is_set():
                    raise ConnectionError("the client has closed its connection")
        finally:
            self.num_sending -= 1

    async def disconnected(self) -> None:
        await self.has_left.wait()

    def leave(self) -> None:
        self.has_left.set()
        self.ready.set()

    def read(self) -> None:
        self.slow = False
        self.ready.set()


@dataclass
class Seen:
    """The story of a handler: its events, and the state after each of them."""

    story: list[str] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)  # the request's state at each abort
    num_aborted: list[int] = field(default_factory=list)  # soon after each event
    num_later: list[int] = field(default_factory=list)  # later after each event
    sent: list[list[str]] = field(default_factory=list)  # after each event
    ended: list[bool] = field(default_factory=list)  # whether the handler had ended after each event
    error: BaseException | None = None  # what the handler ended with
    blocks: int = 0
    most_sending: int = 0
    left_over: list[str] = field(default_factory=list)  # the waits of tasks that still run

    def __str__(self) -> str:
        return "Events: " + ", ".join(self.story)


def play(stream: Answer, events: Iterable[str], refusal: BaseException | None = None) -> Seen:
    """Run the learner's handler through a scene, and stop all of its tasks in the end."""
    with asyncio.Runner(loop_factory=SimulatedTime) as runner:
        runner.get_loop().set_exception_handler(lambda *_: None)
        return runner.run(_play(stream, list(events), refusal))


async def _play(stream: Answer, events: list[str], refusal: BaseException | None) -> Seen:
    engine, client, seen = FakeEngine(refusal), FakeClient(), Seen()
    answer = stream(engine, client, "Once upon a time")
    if not inspect.isawaitable(answer):
        raise Wrong(
            f"stream(…) returns {answer!r:.60} at once. It waits for pieces, so it must be an `async def`"
        )
    own = asyncio.current_task()
    handler = asyncio.ensure_future(answer)
    for event in ["submit", *events]:
        request = engine.requests[0] if engine.requests else None
        if event != "submit":
            _happen(event, request, client, handler)
        await asyncio.sleep(SOON)
        seen.story.append(event)
        seen.num_aborted.append(len(engine.aborted))
        await asyncio.sleep(LATER)
        seen.num_later.append(len(engine.aborted))
        seen.sent.append(list(client.sent))
        seen.ended.append(handler.done())
    seen.aborted, seen.blocks, seen.most_sending = list(engine.aborted), engine.blocks, client.most_sending
    if handler.done():
        seen.error = asyncio.CancelledError() if handler.cancelled() else handler.exception()
    if isinstance(seen.error, Wrong | KeyboardInterrupt | SystemExit | NotImplementedError):
        raise seen.error
    for task in asyncio.all_tasks() - {own, handler}:
        seen.left_over.append(_what_it_does(task))
        task.cancel()
    handler.cancel()
    return seen


def _happen(
    event: str, request: FakeRequest | None, client: FakeClient, handler: "asyncio.Future[Any]"
) -> None:
    kind, _, what = event.partition(" ")
    match kind:
        case "piece" if request:
            request.produce(what.strip("'"))
        case "finish" if request:
            request.end("finished")
        case "fail" if request:
            request.end("failed", EngineError("out of memory"))
        case "disconnect":
            client.leave()
        case "slow":
            client.slow = True
        case "read":
            client.read()
        case "cancel":
            handler.cancel()


def _what_it_does(task: "asyncio.Task[Any]") -> str:
    """Return whether a task waits for the client's end, or does something else."""
    frames, coroutine = list[str](), cast(Any, task.get_coro())
    while coroutine is not None:
        frames.append(getattr(getattr(coroutine, "cr_code", None), "co_name", ""))
        coroutine = getattr(coroutine, "cr_await", None)
    return "watches" if "disconnected" in frames else "sends"


ALL = ["piece 'Once'", "piece ' upon'", "finish"]


def require_streamed(stream: Answer) -> None:
    """Raise `Wrong` unless each piece is sent when it comes, in order, and the handler then returns."""
    seen = play(stream, ALL)
    raise_unexpected(seen)
    require_no_abort(seen)
    right = [[], ["Once"], ["Once", " upon"], ["Once", " upon"]]
    if seen.sent != right:
        if not any(seen.sent):
            raise Wrong(
                f"nothing is sent. `client.send(piece)` alone does nothing: await client.send(piece). {seen}"
            )
        if not any(seen.sent[:-1]):
            raise Wrong(f"nothing is sent before the end. Send the pieces one by one, as they come. {seen}")
        if "Once" not in seen.sent[-1]:
            raise Wrong(f"the first piece is lost. Send every piece. {seen}: {seen.sent[-1]} is sent")
        raise Wrong(f"{seen}: {seen.sent[-1]} is sent; it should be {right[-1]}, each as soon as it comes")
    expect.that(
        seen.ended[-1],
        f"the handler does not return after the last piece, because it still waits for the client to leave. Wait for "
        f"the first of the two. {seen}",
    )


def raise_unexpected(seen: Seen, *allowed: type[BaseException]) -> None:
    """Raise what the handler raised, unless it may raise that here."""
    if seen.error is None or isinstance(seen.error, allowed):
        return
    if isinstance(seen.error, ConnectionError):
        raise Wrong(
            f"the handler raises ConnectionError. A client that leaves is no error of the server: return. {seen}"
        )
    raise seen.error


def require_no_abort(seen: Seen) -> None:
    if not seen.aborted:
        return
    state = seen.aborted[0]
    if state in ("running", "waiting"):
        raise Wrong(
            f"the request is aborted although its client is there. Only a client that leaves, an error or a cancelled "
            f"handler ends a request early. {seen}"
        )
    raise Wrong(
        f"abort() is called for a request that has already ended: it has {state}. Its blocks are free, and perhaps "
        f"they are another request's now. Look at request.finished first. {seen}"
    )


def require_abort(seen: Seen, event: int, otherwise: str) -> None:
    """Raise `Wrong` unless there is exactly one abort, right after the event of that index."""
    if seen.num_aborted[event] == 0:
        raise Wrong(f"{otherwise}. {seen}")
    if len(seen.aborted) > 1:
        raise Wrong(
            f"abort() is called twice for one request. Call it in one place only, where every way out passes. {seen}"
        )


@ABORT.part("each piece as it comes", points=1)
def abort_streams(stream: Answer) -> None:
    require_streamed(stream)
    seen = play(stream, ["slow", *ALL, "read"])
    raise_unexpected(seen)
    expect.that(
        seen.most_sending <= 1,
        "several pieces are being sent at the same time to a slow client. Wait until the client has taken a piece "
        f"before you send the next one, otherwise they pile up in memory. {seen}",
    )
    expect.that(
        seen.sent[-1] == ["Once", " upon"] and seen.ended[-1],
        f"{seen}: {seen.sent[-1]} is sent after the slow client reads again, and the handler "
        f"{'has' if seen.ended[-1] else 'has not'} returned",
    )
    require_no_abort(seen)


def why_not_aborted(seen: Seen) -> str:
    """Return why the request was not aborted when its client left, which is event 2 of `seen`."""
    if seen.num_later[2]:
        return (
            "the client's end is noticed late, because the handler looks for it only from time to time. Wait for "
            "client.disconnected() in a task"
        )
    both = "Wait for the next piece and for client.disconnected() at the same time"
    if not seen.ended[2] and seen.num_aborted[3]:
        return f"the client's end is noticed only when a piece comes. {both}"
    if not seen.ended[3]:
        return f"the handler waits for the end of the generation, although no one reads it. {both}"
    return "the client leaves, and its request is never aborted. It holds its blocks until it has generated everything"


@ABORT.part("a client that leaves", points=3)
def abort_on_disconnect(stream: Answer) -> None:
    require_streamed(stream)
    while_running = play(stream, ["piece 'Once'", "disconnect", "piece ' upon'", "piece ' a'", "finish"])
    raise_unexpected(while_running)
    require_abort(while_running, 2, why_not_aborted(while_running))
    expect.that(
        while_running.ended[2],
        f"the request is aborted, and the handler does not return when the client has left. {while_running}",
    )
    while_waiting = play(stream, ["disconnect", "piece 'Once'", "finish"])
    raise_unexpected(while_waiting)
    require_abort(
        while_waiting,
        1,
        "the client leaves while its request still waits in the queue, and nothing happens. Wait for "
        "client.disconnected() from the beginning, not only after the first piece",
    )
    while_sending = play(
        stream, ["slow", "piece 'Once'", "piece ' upon'", "disconnect", "piece ' a'", "finish"]
    )
    raise_unexpected(while_sending)
    require_abort(
        while_sending,
        4,
        "the client leaves while a piece is being sent: send raises ConnectionError, and the handler returns without "
        "an abort. Look at request.finished, not at the task that sends"
        if while_sending.ended[4]
        else "the client leaves while a piece is being sent, and nothing happens. Wait for client.disconnected() at "
        "the same time",
    )
    expect.that(
        while_sending.ended[4], f"the handler does not return when the client has left. {while_sending}"
    )


@ABORT.part("a request that has ended is not aborted", points=1)
def abort_not_finished(stream: Answer) -> None:
    require_streamed(stream)
    unread = play(stream, ["slow", "piece 'Once'", "piece ' upon'", "finish", "disconnect"])
    raise_unexpected(unread)
    require_no_abort(unread)
    expect.that(unread.ended[-1], f"the handler does not return when the client has left. {unread}")
    failed = play(stream, ["piece 'Once'", "fail"])
    raise_unexpected(failed, EngineError)
    require_no_abort(failed)
    require_no_abort(play(stream, ["slow", "piece 'Once'", "fail", "disconnect"]))


@ABORT.part("a handler that is cancelled", points=2)
def abort_on_cancel(stream: Answer) -> None:
    require_streamed(stream)
    scenes: dict[str, list[str]] = {
        "while its request waits": ["cancel", "piece 'Once'", "finish"],
        "between two pieces": ["piece 'Once'", "cancel", "piece ' upon'", "finish"],
        "while it sends": ["slow", "piece 'Once'", "cancel", "piece ' upon'", "finish"],
    }
    for when, events in scenes.items():
        seen = play(stream, events)
        raise_unexpected(seen, asyncio.CancelledError)
        require_abort(
            seen,
            events.index("cancel") + 1,
            f"the handler is cancelled {when}, and its request goes on. CancelledError is not an Exception: abort in "
            "`finally`",
        )
        expect.that(
            isinstance(seen.error, asyncio.CancelledError),
            "the handler is cancelled, and ends as if nothing had happened. Let CancelledError out: without it, the "
            f"server cannot tell that the handler was stopped. A `return` in `finally` hides it too. {seen}",
        )
    require_no_abort(play(stream, ["slow", "piece 'Once'", "finish", "cancel"]))


@ABORT.part("errors, and nothing is left", points=1)
def abort_errors(stream: Answer) -> None:
    require_streamed(stream)
    refusal = EngineError("the queue is full")
    refused = play(stream, [], refusal)
    if refused.error is not refusal:
        raise Wrong(
            f"submit raises {refusal!r}, and the handler ends with {refused.error!r}. The error of submit must come "
            "out: submit before `try`, because there is no request to abort"
        )
    failed = play(stream, ["piece 'Once'", "fail"])
    if not isinstance(failed.error, EngineError):
        raise Wrong(
            f"the error of the engine is lost: the request fails, and the handler ends with {failed.error!r}. The "
            "client would take half an answer for a whole one. A task keeps its error until its result() is asked for. "
            f"{failed}"
        )
    scenes = (
        ALL,
        ["piece 'Once'", "disconnect"],
        ["piece 'Once'", "cancel"],
        ["slow", "piece 'a'", "finish", "cancel"],
    )
    for events in scenes:
        seen = play(stream, events)
        raise_unexpected(seen, asyncio.CancelledError)
        if seen.left_over:
            does = (
                "still waits for the client"
                if "watches" in seen.left_over
                else "still sends, or waits for a piece"
            )
            raise Wrong(f"the handler has ended, and a task of it {does}. Cancel it in `finally`. {seen}")
        expect.that(seen.blocks == 0, f"{seen.blocks} blocks are still held. {seen}")
