"""The checks before a route sees a request: its key and the size of its body. And a last answer to any error.

These are plain ASGI: functions `(scope, receive, send)` around another. Starlette's own base class for middleware would
hide the disconnection of a client from the route.
"""

import asyncio
import hmac
import logging
import time
import traceback
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minillm.serving.failures import Failure, failure_of
from minillm.serving.settings import Settings

OPEN_PATHS = {"/", "/health", "/metrics", "/version", "/docs", "/openapi.json"}
"""Paths that need no key. vLLM asks for the key below /v1 only, so its /tokenize is open too; ours is not."""
OPEN_FOLDERS = ("/page/",)

LOGGED_BYTES = 2000  # of a body, with log_requests

log = logging.getLogger("minillm.serving")


class LastAnswer:
    """Answers 500 for an error that no handler knows, and logs where it happened, without the request's content."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, body = time.monotonic(), 0, b""

        async def read() -> Message:
            nonlocal body
            message = await receive()
            if self.settings.log_requests:
                body = (body + message.get("body", b""))[:LOGGED_BYTES]
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, read, noted)
        except Exception as error:
            where = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__)).format()
            log.error("%s\n%s", type(error).__name__, "".join(where))
            if not status:
                await failure_of(error).response()(scope, receive, noted)
        finally:
            if self.settings.log_requests:
                seconds = time.monotonic() - began
                log.info("%s %r %s %.3f s %r", scope["method"], scope["path"], status, seconds, body)


class NeedsKey:
    """Refuses requests without the API key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.expected = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_open(scope):
            given = dict(scope["headers"]).get(b"authorization", b"")
            scheme, _, key = given.partition(b" ")
            # compare_digest takes the same time for any key, so its time does not tell how much of a guess is right.
            if not hmac.compare_digest(scheme.capitalize() + b" " + key.strip(), self.expected):
                words = "the API key is missing or wrong: send the header Authorization: Bearer KEY"
                refusal = Failure(401, words, None, {"WWW-Authenticate": "Bearer"})
                await refusal.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _is_open(scope: Scope) -> bool:
    path = scope["path"]
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS) or scope["method"] == "OPTIONS"


class BoundedBody:
    """Refuses a body that is too long, while it is read, or that takes too long to arrive."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit, num_bytes, complete = self.settings.max_body_bytes, 0, False
        deadline = time.monotonic() + self.settings.body_seconds
        too_long = HTTPException(413, f"the body is longer than {limit} bytes: send less")
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isascii() and declared.isdigit() and len(declared) < 20 and int(declared) > limit:
            await failure_of(too_long).response()(scope, receive, send)
            return

        async def bounded() -> Message:
            nonlocal num_bytes, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message: Any = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body did not arrive in time") from None
            num_bytes += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if num_bytes > limit:
                raise too_long
            return message  # type: ignore[no-any-return]

        await self.app(scope, bounded, send)
