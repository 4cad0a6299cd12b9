"""The live page: a chat with the models of this server, and the player that follows their engines.

It shows the prompts of all users. So a server that other machines can reach has it only with --live. Otherwise it
answers only under the names of this machine, so that a page of another site cannot read it through a user's browser.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from minillm.llm import LLM
from minillm.player.page import FOLDER as PLAYER
from minillm.serving.feed import Feed, TooManyPagesError, feed_of
from minillm.serving.registry import Registry
from minillm.serving.settings import Settings
from minillm.serving.sse import event

PAGE = Path(__file__).parent / "page"
FILES = {
    "live.js": (PAGE / "live.js", "text/javascript"),
    "live.css": (PAGE / "live.css", "text/css"),
    "player.js": (PLAYER / "player.js", "text/javascript"),
}
LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
OFF = "shows the prompts of all users, so it is only for this machine. Start the server with --live to change that"
HEARTBEAT = 15.0  # seconds until a comment is sent, so that a connection that is gone is noticed
# Nothing from elsewhere. A notebook on this machine may show the page in a frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self' http://localhost:* http://127.0.0.1:*"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class LivePage:
    """The routes of the page for the models of `registry`. `feeds` has a feed for each engine of each model."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry, self._settings = registry, settings
        self.feeds = {
            name: [feed_of(replica.llm) for replica in several] for name, several in registry.replicas.items()
        }
        self._closing = False
        self._wakes: set[Callable[[], None]] = set()
        self.router = APIRouter(include_in_schema=False)
        self.router.add_api_route("/", self._index)
        self.router.add_api_route("/page/{name}", self._file)
        self.router.add_api_route("/live", self._about)
        self.router.add_api_route("/live/{model:path}", self._stream)

    def close(self) -> None:
        """End all streams, so that the server can stop. Any thread may call this."""
        self._closing = True
        for wake in list(self._wakes):
            wake()

    async def _index(self, request: Request) -> FileResponse:
        self._check(request)
        return FileResponse(PAGE / "index.html", media_type="text/html", headers=HEADERS)

    async def _file(self, name: str) -> FileResponse:
        if name not in FILES:
            raise HTTPException(404, f"the page has no file {name!r}")
        path, media_type = FILES[name]
        return FileResponse(path, media_type=media_type, headers=HEADERS)

    async def _about(self, request: Request) -> JSONResponse:
        """Return the models, and what the page says about itself."""
        self._check(request)
        why = "it was started with --live" if self._settings.live else "the server answers only this machine"
        notice = f"This page shows the prompts and the answers of all users of this server. It is on because {why}."
        models = [
            {"name": name, "chat": _can_chat(several[0].llm), "num_engines": len(several)}
            for name, several in self._registry.replicas.items()
        ]
        return JSONResponse({"models": models, "notice": notice}, headers=HEADERS)

    async def _stream(self, request: Request, model: str, engine: int = 0) -> StreamingResponse:
        """Return the recording of an engine as Server-Sent Events: the state so far, then what is new."""
        self._check(request)
        feeds = self.feeds.get(model, [])
        if not 0 <= engine < len(feeds):
            raise HTTPException(404, f"no engine {engine} of a model {model!r}")
        pieces = self._pieces(feeds[engine])
        try:
            first = await anext(pieces)
        except TooManyPagesError as error:
            raise HTTPException(503, str(error)) from None
        except StopAsyncIteration:
            raise HTTPException(503, "the server is stopping") from None

        async def stream() -> AsyncGenerator[bytes, None]:
            try:
                yield first
                async for piece in pieces:
                    yield piece
            finally:
                await pieces.aclose()

        return StreamingResponse(stream(), media_type="text/event-stream", headers=HEADERS)

    async def _pieces(self, feed: Feed) -> AsyncGenerator[bytes, None]:
        events, wake = asyncio.get_running_loop(), asyncio.Event()

        def on_news() -> None:
            with suppress(RuntimeError):  # the event loop is closed
                events.call_soon_threadsafe(wake.set)

        cursor = None
        with feed.watched(on_news):
            self._wakes.add(on_news)
            try:
                yield b": the recording of an engine\n\n"
                while not self._closing:
                    # Reading waits for the feed's thread, which may be at work.
                    news = await asyncio.to_thread(feed.news, cursor)
                    if news is not None:
                        cursor, data = news
                        yield event(data)
                    try:
                        await asyncio.wait_for(wake.wait(), HEARTBEAT)
                    except TimeoutError:
                        yield b":\n\n"
                    wake.clear()
            finally:
                self._wakes.discard(on_news)

    def _check(self, request: Request) -> None:
        """Raise HTTPException if the page is off, or for a request that a page of another site may have sent."""
        if self._settings.live is False:
            raise HTTPException(404, f"the live page {OFF}")
        host = request.url.hostname or ""
        if self._settings.live is None and host not in LOCAL:
            raise HTTPException(403, f"the live page does not answer under {host!r}: it {OFF}")
        site, target = request.headers.get("sec-fetch-site", "none"), request.headers.get("sec-fetch-dest")
        if site in ("cross-site", "same-site") and target not in ("document", "iframe"):
            raise HTTPException(403, "the live page is not for the pages of other sites")


def _can_chat(llm: LLM) -> bool:
    return llm.tokenizer is not None and llm.tokenizer.wrapped.chat_template is not None
