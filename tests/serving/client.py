"""A plain HTTP client, and an engine whose steps a test allows one by one."""

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

from minillm.engine.engine import Engine
from minillm.serving.sse import EventReader


def request(server, method, path, body=None, headers=None):
    """Return (status, headers, body); a dict is sent as JSON."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    data = json.dumps(body) if isinstance(body, dict | list) else body
    headers = {"Content-Type": "application/json", **(headers or {})}
    connection.request(method, path, data, headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, response.headers, text


def get(server, path, **headers):
    status, _, text = request(server, "GET", path, headers=headers)
    return status, text.decode()


def post(server, path, body, **headers):
    status, _, text = request(server, "POST", path, body, headers)
    return status, json.loads(text) if text else None


def error(server, path, body):
    """Return the status and the error of a request that must be refused."""
    status, content = post(server, path, body)
    assert set(content) == {"error"} and set(content["error"]) == {"message", "type", "param", "code"}
    assert content["error"]["code"] == status and "Traceback" not in content["error"]["message"]
    return status, content["error"]


def events(server, path, body):
    """Return the data of all events of a stream."""
    status, headers, text = request(server, "POST", path, body | {"stream": True})
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream"), text
    return EventReader().feed(text)


def chunks(server, path, body):
    """Return the chunks of a stream that ends well."""
    *found, last = events(server, path, body)
    assert last == "[DONE]"
    return [json.loads(chunk) for chunk in found]


def raw(server, path, body, receive_buffer=None, **headers):
    """Send a request over a socket, and return the socket."""
    address = urlsplit(server.url)
    sock = socket.socket()
    sock.settimeout(30)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect((address.hostname, address.port))
    data = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {address.netloc}",
        "Content-Type: application/json",
        "Connection: close",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    sock.sendall("\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode() + data)
    return sock


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


class Steps:
    """Engine steps that run only when they are allowed. `done` counts them."""

    def __init__(self):
        self.done, self._allowed = 0, threading.Semaphore(0)
        self.open = False

    def allow(self, count):
        for _ in range(count):
            self._allowed.release()

    def take(self):
        while not self.open and not self._allowed.acquire(timeout=0.01):
            pass
        self.done += 1


@contextmanager
def steps_of(monkeypatch):
    steps, step = Steps(), Engine.step

    def counted(self):
        steps.take()
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", counted)
        try:
            yield steps
        finally:
            steps.open = True
