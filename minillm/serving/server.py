"""Run the application: in a thread for tests and notebooks (`Server`), or as the command (`serve`)."""

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from types import TracebackType
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from minillm.llm import LLM
from minillm.serving.app import create_app
from minillm.serving.live import LOCAL
from minillm.serving.registry import Registry
from minillm.serving.service import Service
from minillm.serving.settings import Settings

log = logging.getLogger("minillm.serving")
BACKLOG = 2048  # connections that may wait to be accepted
LAST_SECONDS = 2  # for responses to leave after the last request has ended


def _configuration(app: ASGIApp) -> uvicorn.Config:
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # its lines have paths and queries
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=LAST_SECONDS,
        http="h11",  # it bounds the size of a request's headers; httptools does not
    )


def _runner(server: uvicorn.Server) -> asyncio.Runner:
    """Return a runner with uvloop's event loop, if it is installed: it takes less CPU time."""
    return asyncio.Runner(loop_factory=server.config.get_loop_factory())


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket with this address. Raises `OSError` if it is in use or not this machine's.

    Clients are refused until the server listens.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server:
    """A server in a thread of this process: `with Server(llm) as server: … server.url`.

    `served` is an LLM, a registry, the application of `create_app`, or any other ASGI application. The engines go on
    running when the server stops. Port 0 means any free port.
    """

    def __init__(
        self,
        served: LLM | Registry | ASGIApp,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: Settings | None = None,
    ) -> None:
        if isinstance(served, LLM):
            served = Registry({served.name: served})
        settings = _with_live_page(settings or Settings(), host)
        self.app: Any = create_app(served, settings) if isinstance(served, Registry) else served
        self._listener = bound_socket(host, port)
        self._listener.listen(BACKLOG)
        self.url = _url(self._listener)
        self._uvicorn = uvicorn.Server(_configuration(self.app))
        self._thread = threading.Thread(target=self._run, name="minillm-server", daemon=True)

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    @property
    def registry(self) -> Registry:
        return self.service.registry

    def start(self) -> "Server":
        """Start the thread, and return when the server answers."""
        self._thread.start()
        while not self._uvicorn.started:
            if not self._thread.is_alive():
                raise RuntimeError("the server's thread ended before the server had started")
            time.sleep(0.002)
        return self

    def stop(self) -> None:
        """Close all connections, which aborts their requests, and end the thread."""
        if isinstance(self.app, FastAPI):
            self.app.state.live.close()  # its streams have no end of their own
        self._uvicorn.should_exit = True
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        with _runner(self._uvicorn) as runner:
            runner.run(self._uvicorn.serve([self._listener]))

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(registry: Registry, settings: Settings, listener: socket.socket, *, grace: float = 30.0) -> None:
    """Serve at `bound_socket` until SIGTERM or SIGINT, then finish the running requests for `grace` seconds.

    New requests are refused then, and those that have not finished by the end are aborted. A second signal ends the
    process at once.
    """
    app = create_app(registry, _with_live_page(settings, listener.getsockname()[0]))
    listener.listen(BACKLOG)
    print(f"minillm serves {', '.join(registry.replicas)} at {_url(listener)}", flush=True)
    try:
        server = uvicorn.Server(_configuration(app))
        gc.collect()
        gc.freeze()  # the models stay until the end, so no later collection has to look at them
        with _runner(server) as runner:
            runner.run(_serve(app, server, listener, grace))
    finally:
        listener.close()
        registry.close()


def _with_live_page(settings: Settings, host: str) -> Settings:
    """Return the settings without a live page if other machines can reach `host`, unless `live` is set."""
    return replace(settings, live=False) if settings.live is None and host not in LOCAL else settings


async def _serve(app: FastAPI, server: uvicorn.Server, listener: socket.socket, grace: float) -> None:
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            os._exit(130)
        asked.set()

    events = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        events.add_signal_handler(number, on_signal)
    serving = asyncio.create_task(server._serve([listener]))  # `serve` would install its own handlers
    stopping = asyncio.create_task(asked.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await _drain(app.state.service, grace)
        app.state.live.close()
        server.should_exit = True
    await serving


async def _drain(service: Service, grace: float) -> None:
    """Refuse new requests, wait for the running ones, and abort what is left after `grace` seconds."""
    service.draining = True
    deadline = time.monotonic() + grace
    while service.num_open and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    for replica in service.registry:
        replica.abort_all()
    deadline = time.monotonic() + LAST_SECONDS
    while service.num_open and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
