"""The sandbox runs a learner's code in a worker process with limits on its time, memory and output.

One server process imports torch once and, on Linux, forks a worker for each job, which takes milliseconds. The server
never runs a learner's code itself. It has only one thread (torch and BLAS get this setting before they start), so
forking it is safe. The worker leads its own process group, which is always killed at the end. If the notebook's kernel
dies, the server and the worker end too.

| | Linux | macOS, Windows |
|---|---|---|
| worker | forked from the server | the server itself, and a new one for the next job (seconds) |
| time limit | processor time, and three times that in wall-clock time | three times that in wall-clock time |
| memory limit | RLIMIT_DATA: private memory, so the line that asks for too much gets the error | none |
| output limit | yes | yes |
| children of the learner's code | killed with the group | macOS too; not on Windows |

It protects against accidents, not against attacks: the code runs as the user and can reach the user's files.
"""

import atexit
import contextlib
import json
import os
import pickle
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from minillm.course.source import Source

MAX_OUTPUT = 20_000  # characters of a job's output that are kept
PATIENCE = 3  # wall-clock time limit over an answer's seconds, because other programs may slow it down
START_UP = 60.0  # seconds until a server has torch and the checks ready
SILENCE = (
    15.0  # seconds without a sign of life (there are ten per second) after which a server counts as lost
)
NO_ANSWER = (
    "The checking process has stopped answering, and was ended. Check again: the next check starts a new one."
)
CAN_FORK = sys.platform == "linux"  # macOS: Apple's libraries do not survive a fork; Windows has none
Event = dict[str, Any]
_SERVER_MODULE = "minillm.course.worker"


@dataclass
class Job:
    """A task for a worker: run the parts of exercise `exercise` of module `checks` on `source`."""

    exercise: str
    checks: str
    source: Source
    seconds: float
    megabytes: int
    folder: str  # the learner's working folder
    path: list[str]  # the learner's sys.path
    token: str = field(default_factory=lambda: secrets.token_hex(8))  # begins every line of this job's events


def run(job: Job) -> list[Event]:
    """Run a job in the shared server, and return the events of `Server.run`."""
    global _server
    if _server is None:
        _server = Server(fork=CAN_FORK)
    return _server.run(job)


_server: "Server | None" = None


class Server:
    """The process that has torch imported. It starts with the first job, and again after it was lost."""

    def __init__(self, *, fork: bool) -> None:
        self.fork = fork
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._lines = queue.SimpleQueue[bytes]()  # what the server has written; b"" at its end
        atexit.register(self.close)

    def start(self) -> subprocess.Popen[bytes]:
        """Return the running server, or start one."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        environment = dict(os.environ)
        # A process with more than one thread cannot be forked safely, and OpenBLAS starts its own when it is imported.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = "1"
        # A learner's kernel is always interpreted. It gives the same numbers everywhere, and every load can be checked.
        environment["TRITON_INTERPRET"] = "1"
        root = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 – open as long as the server
        self._process = subprocess.Popen(
            # -P keeps a file torch.py in the learner's folder from replacing torch.
            [sys.executable, "-P", "-m", _SERVER_MODULE, "fork" if self.fork else "once"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # interrupting the notebook must not interrupt the server
        )
        assert self._process.stdout is not None
        self._lines = queue.SimpleQueue()
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        return self._process

    def run(self, job: Job) -> list[Event]:
        """Run a job and return the worker's events (see worker.py).

        The last event is always "end", with the reason if the worker ended too early.
        """
        process, events = self.start(), list[Event]()
        try:
            _send(process, job)
            for event in self._events(job):
                events.append(event)
                if "end" in event:
                    break
            else:
                self._kill()
                events.append(_end(self._why(process.wait()), ours=not events))
        except queue.Empty:
            self.close()
            # A server that forks limits the answer's time itself, so its silence is not the answer's fault.
            ours = self.fork or not events
            events.append(_end(NO_ANSWER if ours else too_slow(job.seconds), ours))
        except (
            BaseException
        ):  # above all an interrupt: the rest of these events must not be read as those of the next job
            self.close()
            raise
        if not self.fork:
            self.close()
            self.start()  # to be warm for the next job
        return events

    def _events(self, job: Job) -> Iterator[Event]:
        """Yield the job's events until the server ends. Raises queue.Empty if the server is silent for too long."""
        deadline = time.monotonic() + START_UP
        while line := self._lines.get(timeout=max(0.0, deadline - time.monotonic())):
            token, _, text = line.partition(b" ")
            event = cast(Event, json.loads(text)) if token == job.token.encode() else {}
            if event:
                yield event
            if "parts" in event:
                deadline = time.monotonic() + (SILENCE if self.fork else PATIENCE * job.seconds)
            elif self.fork:
                deadline = max(deadline, time.monotonic() + SILENCE)

    def _why(self, status: int) -> str:
        assert self._errors is not None
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return ended_early(status) + "".join(f" ({line})" for line in last)

    def _kill(self) -> None:
        if self._process is None:
            return
        if sys.platform == "win32":
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the server and its worker."""
        if self._process is None:
            return
        self._kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._errors):  # the reading thread closes the third
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process = None


def _read(source: IO[bytes], lines: "queue.SimpleQueue[bytes]") -> None:
    """Put each line into the queue, and b"" at the end."""
    with source:
        for line in source:
            lines.put(line)
    lines.put(b"")


def _send(process: subprocess.Popen[bytes], job: Job) -> None:
    assert process.stdin is not None
    with contextlib.suppress(
        BrokenPipeError
    ):  # the server has ended, and the reader of its output notices that
        pickle.dump(job, process.stdin)
        process.stdin.flush()


def _end(reason: str, ours: bool) -> Event:
    """Return the last event. `ours` means that the answer did not cause the end."""
    return {"end": reason} | ({"ours": True} if ours else {})


def too_slow(seconds: float) -> str:
    return f"was stopped after {seconds:g} s: does a loop never end?"


def ended_early(status: int) -> str:
    """Return why a worker ended too early, from its exit status (negative: the signal that killed it)."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"was killed by {name}: out of memory, or a crash inside a library"
    return f"ended the whole process with status {status}: is there an os._exit? Let it return its result instead"
