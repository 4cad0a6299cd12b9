"""Run minillm's server or vLLM's, and ask both the same. A server that is paused uses no CPU time."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

from minillm.serving.sse import DONE, EventReader
from tests.peers.test_vllm import ENVIRONMENT, ROOT, VLLM

MODEL = ROOT / "minillm/models/tinytales"
START_SECONDS = 300
COMMANDS = {
    "minillm": [
        sys.executable,
        "-m",
        "minillm.cli",
        "serve",
        f"tinytales={MODEL}",
        "--max-model-len",
        "1024",
    ],
    "vllm": [
        *(VLLM, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL),
        *(
            "--served-model-name",
            "tinytales",
            "--dtype",
            "float32",
            "--max-model-len",
            "1024",
            "--enforce-eager",
        ),
        *("--max-num-seqs", "64", "--host", "127.0.0.1", "--disable-uvicorn-access-log"),
    ],
}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    """A server in a process group of its own, with the address `url`."""

    def __init__(self, engine, folder, *arguments):
        port = free_port()
        own = {**os.environ, **ENVIRONMENT, "VLLM_NO_USAGE_STATS": "1"}
        inherited = os.environ.get("PYTHONPATH", "")
        own["PYTHONPATH"] = f"{ROOT}{os.pathsep}{inherited}" if engine == "minillm" else ""
        self.url, self.log = f"http://127.0.0.1:{port}", folder / f"{engine}-server.log"
        with self.log.open("a") as stream:
            self.process = subprocess.Popen(
                [*COMMANDS[engine], "--port", str(port), *arguments],
                env=own,
                cwd=folder,
                stdout=stream,
                stderr=stream,
                process_group=0,
            )

    def signal(self, number):
        """Send a signal to all processes of the server: SIGSTOP pauses them, SIGCONT continues."""
        os.killpg(self.process.pid, number)

    def end(self):
        self.signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait(30)


@contextmanager
def running(engine, folder, *arguments):
    """Yield a server that answers, and stop it."""
    server = Server(engine, folder, *arguments)
    try:
        wait_until_healthy(server.url, server.process, server.log)
        yield server
    finally:
        server.end()


def wait_until_healthy(url, process, log):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended:\n{log.read_text()[-3000:]}"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no answer within {START_SECONDS} s:\n{log.read_text()[-3000:]}")


def ask(url, path, body=None, raw=None):
    """Return the status and the JSON of an answer, or the list of the JSON of its events."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            status, headers, content = answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        status, headers, content = error.code, error.headers, error.read()
    if "event-stream" in headers.get("Content-Type", ""):
        *events, last = EventReader().feed(content)
        return status, [*map(json.loads, events), last if last == DONE else json.loads(last)]
    return status, json.loads(content) if content else None
