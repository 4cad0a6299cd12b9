"""One request to an OpenAI server, with the time of each piece of its answer.

A load generator must not slow down what it measures. So this client does only what a streamed answer needs: one
connection per request, HTTP/1.1 by h11, which uvicorn brings along, and Server-Sent Events (sse.py).
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from minillm.serving.sse import DONE, EventReader

CHUNK = 65536  # bytes of one read


@dataclass(slots=True)
class Answer:
    """The times of one streamed answer, in seconds of `time.perf_counter`.

    `sent` is when the request should have been sent, and `token_times` when each piece of text came. `error` says why
    there is no complete answer: "HTTP 429", "timeout" and the like.
    """

    sent: float
    token_times: list[float] = field(default_factory=list)
    ended: float = 0.0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    error: str | None = None

    @property
    def ttft(self) -> float:
        """Return the time to first token."""
        return self.token_times[0] - self.sent

    @property
    def latency(self) -> float:
        """Return the time from sending to the end of the answer."""
        return self.ended - self.sent

    @property
    def gaps(self) -> list[float]:
        """Return the inter-token latencies: the times between pieces of text."""
        return [after - before for before, after in pairwise(self.token_times)]

    @property
    def tpot(self) -> float:
        """Return the time per output token after the first one; 0 for an answer of one token."""
        return (self.token_times[-1] - self.token_times[0]) / max(1, self.num_output_tokens - 1)


async def ask(
    url: str, body: Mapping[str, Any], sent: float, *, timeout: float, headers: Mapping[str, str]
) -> Answer:
    """Send `body` to `url`/v1/completions as a stream, and return the times of its answer.

    The stream must end with "[DONE]" and report its usage, or the answer has an error.
    """
    answer = Answer(sent)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    try:
        async with asyncio.timeout(timeout):
            complete = False
            async for event in _events(f"{url}/v1/completions", {**body, **options}, headers):
                complete = event == DONE
                if not complete:
                    _note(answer, json.loads(event))
        if not complete and answer.error is None:
            answer.error = "incomplete stream"
        elif answer.error is None and not answer.token_times:
            answer.error = "no text"
    except TimeoutError:
        answer.error = "timeout"
    except _StatusError as error:
        answer.error = f"HTTP {error.status}"
    except (OSError, EOFError, ValueError) as error:
        answer.error = type(error).__name__
    answer.ended = time.perf_counter()
    return answer


def _note(answer: Answer, chunk: Mapping[str, Any]) -> None:
    """Enter one chunk of the stream into `answer`."""
    now = time.perf_counter()
    if "error" in chunk:
        answer.error = "error in the stream"
    if any(choice.get("text") for choice in chunk.get("choices", ())):
        answer.token_times.append(now)
    if usage := chunk.get("usage"):
        answer.num_prompt_tokens = usage["prompt_tokens"]
        answer.num_output_tokens = usage["completion_tokens"]


class _StatusError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def _events(url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> AsyncIterator[str]:
    """Yield the data of each event of the answer to a POST. Raises `_StatusError` if its status is not 200."""
    import h11

    address = urlsplit(url)
    secure = ssl.create_default_context() if address.scheme == "https" else None
    port = address.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(address.hostname, port, ssl=secure)
    connection, events = h11.Connection(h11.CLIENT), EventReader()
    content = json.dumps(body).encode()
    fields = {
        "Host": address.netloc,
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Connection": "close",
        **headers,
    }
    try:
        head = connection.send(h11.Request(method="POST", target=address.path, headers=list(fields.items())))
        writer.write(b"".join((head or b"", connection.send(h11.Data(data=content)) or b"")))
        connection.send(h11.EndOfMessage())
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(CHUNK))
            elif isinstance(event, h11.Response) and event.status_code != 200:
                raise _StatusError(event.status_code)
            elif isinstance(event, h11.Data):
                for data in events.feed(bytes(event.data)):
                    yield data
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return
    except h11.RemoteProtocolError as error:
        raise EOFError(str(error)) from error
    finally:
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
