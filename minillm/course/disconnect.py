"""The engine, a request and a client as exercise 13.5 sees them, and the same three over a real engine and connection.

`serve(stream, llm)` returns an application that answers every connection with the learner's `stream`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from minillm.engine.request import Delta
from minillm.llm import LLM
from minillm.sampling import SamplingParams

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Request(Protocol):
    """A request at the engine: `async for piece in request` yields its text. It is its own iterator."""

    @property
    def finished(self) -> bool:
        """Return whether the engine is done with the request. Pieces may still be unread."""

    def abort(self) -> None:
        """End the request, and free its blocks."""

    def __aiter__(self) -> AsyncIterator[str]: ...

    async def __anext__(self) -> str: ...


class Engine(Protocol):
    """Computes requests."""

    def submit(self, prompt: str) -> Request:
        """Queue a request, and return at once."""


class Client(Protocol):
    """One connection."""

    async def send(self, piece: str) -> None:
        """Send a piece, and wait until it is taken. Raise ConnectionError if the client closes its connection."""

    async def disconnected(self) -> None:
        """Wait until the client closes its connection."""


Handler = Callable[[Engine, Client, str], Awaitable[None]]


class LiveRequest:
    """A request of a real engine. `aborts` counts the calls of `abort`."""

    def __init__(self, llm: LLM, prompt: str, params: SamplingParams) -> None:
        self._events, self._deltas = asyncio.get_running_loop(), asyncio.Queue[Delta]()
        self._llm, self.aborts, self._ended = llm, 0, False
        (self._output,) = llm.submit(prompt, params, listener=self._listen)

    def _listen(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            self._events.call_soon_threadsafe(self._deltas.put_nowait, delta)

    @property
    def finished(self) -> bool:
        return self._output.finished

    def abort(self) -> None:
        self.aborts += 1
        self._llm.abort([self._output])

    def __aiter__(self) -> "LiveRequest":
        return self

    async def __anext__(self) -> str:
        if self._ended:
            raise StopAsyncIteration
        delta = await self._deltas.get()
        self._ended = delta.finish_reason is not None
        if self._output.error is not None:
            raise self._output.error
        return delta.text


class LiveEngine:
    """An LLM whose thread runs. `requests` are all that were submitted."""

    def __init__(self, llm: LLM, params: SamplingParams) -> None:
        llm.start()
        self._llm, self._params = llm, params
        self.requests: list[LiveRequest] = []

    def submit(self, prompt: str) -> LiveRequest:
        self.requests.append(LiveRequest(self._llm, prompt, self._params))
        return self.requests[-1]


class HttpClient:
    """A connection of an ASGI server."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._gone = asyncio.Event()

    async def send(self, piece: str) -> None:
        if self._gone.is_set():
            raise ConnectionError("the client has closed its connection")
        await self._send({"type": "http.response.body", "body": piece.encode(), "more_body": True})

    async def disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()


def serve(stream: Handler, engine: Engine) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """Return an ASGI application that continues the text of each request's path with `stream`."""

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
        )
        await stream(engine, HttpClient(receive, send), scope["path"].removeprefix("/"))
        await send({"type": "http.response.body", "body": b""})

    return application
