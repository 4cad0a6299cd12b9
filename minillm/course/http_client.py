"""A small HTTP client for the exercises of chapter 13. It needs no library, and shows the bytes as they arrive."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

Reply = tuple[int, Mapping[str, str], Any]  # the status, the headers, and the JSON


def connect(url: str) -> HTTPConnection:
    return HTTPConnection(url.removeprefix("http://"), timeout=60)


def complete(url: str, **body: Any) -> Reply:
    """Send `body` to /v1/completions, and return the whole reply."""
    with closing(connect(url)) as connection:
        response = _post(connection, body)
        return response.status, response.headers, json.loads(response.read())


def complete_all(url: str, bodies: Sequence[Mapping[str, Any]], num_clients: int) -> list[Reply]:
    """Send all bodies, each as soon as one of `num_clients` clients is free. Return the replies in order."""
    with ThreadPoolExecutor(num_clients) as clients:
        return list(clients.map(lambda body: complete(url, **body), bodies))


def stream_chunks(url: str, size: int, **body: Any) -> Iterator[bytes]:
    """Stream a completion, and yield its bytes in chunks of `size`, whatever they contain."""
    with closing(connect(url)) as connection:
        response = _post(connection, {**body, "stream": True})
        while chunk := response.read(size):
            yield chunk


def read_and_leave(url: str, path: str, num_bytes: int) -> bytes:
    """Get `path`, read the first bytes of the body, and close the connection."""
    with closing(connect(url)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read(num_bytes)


def _post(connection: HTTPConnection, body: Mapping[str, Any]) -> Any:
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse()
