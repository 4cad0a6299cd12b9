"""Run minillm's server or vLLM's, one at a time, and ask both the same."""

import json
import os
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


@contextmanager
def running(engine, folder, *arguments, **environment):
    """Yield the address of a server, and stop it."""
    port = free_port()
    own = {**os.environ, **ENVIRONMENT, "VLLM_NO_USAGE_STATS": "1", **environment}
    own["PYTHONPATH"] = str(ROOT) if engine == "minillm" else ""
    log = folder / f"{engine}-server.log"
    with log.open("a") as stream:
        process = subprocess.Popen(
            [*COMMANDS[engine], "--port", str(port), *arguments],
            env=own,
            cwd=folder,
            stdout=stream,
            stderr=stream,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(url, process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


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
