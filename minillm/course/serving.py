"""Chapter 13's tools: a small server in a thread, requests as bytes, a stop string from a text, numbers of /metrics."""

import asyncio
import json
import re
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SAMPLE = re.compile(r"^(\w+:\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


class SmallServer:
    """Runs `handle` for each connection, in the event loop of a thread: `with SmallServer(handle) as small: …`."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._started, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        self._events = asyncio.get_running_loop()
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        async with server:
            await self._stop.wait()

    def start(self) -> "SmallServer":
        self._thread.start()
        self._started.wait()
        return self

    def stop(self) -> None:
        self._events.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __enter__(self) -> "SmallServer":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


async def body_of(reader: asyncio.StreamReader) -> Any:
    """Return the JSON that one HTTP request carries: its head names the length, and an empty line ends the head."""
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = re.findall(rb"content-length: (\d+)", head, re.IGNORECASE)
    return json.loads(await reader.readexactly(int(length)))


def address(url: str) -> tuple[str, int]:
    """Return host and port of a URL, for a socket."""
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def post_bytes(path: str, body: Mapping[str, Any]) -> bytes:
    """Return the bytes of a POST request.

    It is HTTP/1.0, so the server closes the connection at the end. In HTTP/1.1 the body would also have the lengths of
    its pieces between the events ("chunked").
    """
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


@dataclass(frozen=True)
class Reply:
    status: int
    retry_after: str | None
    content: Any


def post(url: str, **body: Any) -> Reply:
    """Send `body` to the completions of a server, and return its answer, also if it is an error."""
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return Reply(answer.status, None, json.load(answer))
    except urllib.error.HTTPError as error:
        return Reply(error.code, error.headers["Retry-After"], json.load(error))


def stop_string(text: str, length: int = 12) -> str:
    """Return `length` characters of the second half of a text, those whose beginning occurs most often before.

    A beginning counts with its length, from three characters on.
    """

    def score(start: int) -> int:
        stop = text[start : start + length]
        lengths = range(length - 1, 2, -1)
        return sum(
            next((n for n in lengths if text.startswith(stop[:n], at)), 0) for at in range(start - length)
        )

    half = len(text) // 2
    best = max(range(half, max(half + 1, len(text) - length)), key=score)
    return text[best : best + length]


def metrics(url: str, model: str) -> dict[str, float]:
    """Return a model's numbers from `url`/metrics by their names without "vllm:", summed over all other labels."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    found: defaultdict[str, float] = defaultdict(float)
    for name, labels, value in SAMPLE.findall(text):
        if f'model_name="{model}"' in labels and not name.endswith("_bucket"):
            found[name.removeprefix("vllm:")] += float(value)
    return dict(found)


async def poll(
    read: Callable[[], Mapping[str, float]], every: float, samples: list[tuple[float, Any]]
) -> None:
    """Append (seconds since the start, `read()`) to `samples` until cancelled; `read` runs in another thread."""
    events = asyncio.get_running_loop()
    start = events.time()
    with suppress(asyncio.CancelledError):
        while True:
            samples.append((events.time() - start, await asyncio.to_thread(read)))
            await asyncio.sleep(every)
