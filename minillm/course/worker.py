"""The server process and the workers that it forks (sandbox.py explains their purpose).

    python -m minillm.course.worker fork      for each job on stdin: fork, watch, forward the events to stdout
    python -m minillm.course.worker once      run one job in this process

Events are JSON objects, one per line, after the job's token and a space. Any other line is ignored, so a learner's code
cannot write a verdict into the pipe. An empty line is a sign of life. The events are:

    {"parts": [[name, points], …]}             once
    {"part": name, "wrong": message or null}   for each part that was tried
    {"out": text}                              as the learner's code prints it
    {"dropped": n}                             n characters of output were beyond the limit
    {"end": reason}                            "" if all parts ran; "ours": true if the answer did not cause the end
"""

import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch

from minillm.course import judge
from minillm.course.exercise import Exercise, Part, exercises_in
from minillm.course.sandbox import MAX_OUTPUT, PATIENCE, Event, Job, ended_early, too_slow

Send = Callable[[Event], None]
DONE: Event = {"done": True}  # a worker's last event, which the server does not forward


def main(mode: str) -> None:
    """Serve jobs until stdin ends."""
    torch.set_num_threads(1)
    jobs, answers = sys.stdin.buffer, os.dup(1)
    # Output of libraries must not get between the events.
    os.dup2(2, 1)
    while True:
        try:
            job = cast(Job, pickle.load(jobs))
        except EOFError:
            return
        send, exercise = sender(answers, job), load(job)
        send({"parts": [[part.name, part.points] for part in exercise.parts]})
        if mode == "once":
            with tempfile.TemporaryDirectory(prefix="minillm-") as folder:
                work(job, exercise, exercise.parts, Path(folder), send)
            send({"end": ""})
            return
        send({"end": serve(job, exercise, answers)})


def load(job: Job) -> Exercise:
    """Return the job's exercise with its checks. These stay imported for later jobs."""
    module = importlib.import_module(job.checks)
    return next(exercise for exercise in exercises_in(module) if exercise.id == job.exercise)


def line_of(job: Job, event: Event) -> bytes:
    """Return the event as a line, after a line end in case the learner's code has written half a line."""
    return f"\n{job.token} {json.dumps(event)}\n".encode()


def sender(file: int, job: Job) -> Send:
    """Return a function that writes a job's events to `file`, for this process only.

    A fork that the learner's code makes ends when it tries to write an event.
    """
    own = os.getpid()

    def send(event: Event) -> None:
        if os.getpid() != own:
            os._exit(1)
        data = line_of(job, event)
        while data:
            data = data[os.write(file, data) :]

    return send


def serve(job: Job, exercise: Exercise, answers: int) -> str:
    """Run the parts in forked workers, and return why that ended too early, or ""."""
    # Parts marked `alone` get their own process; the others share one.
    groups = groupby(enumerate(exercise.parts), key=lambda entry: entry[0] if entry[1].alone else -1)
    for _, group in groups:
        folder = tempfile.mkdtemp(prefix="minillm-")
        try:
            if reason := fork(job, exercise, [part for _, part in group], Path(folder), answers):
                return reason
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return ""


def fork(job: Job, exercise: Exercise, parts: list[Part], folder: Path, answers: int) -> str:
    """Run some parts in one forked worker, and return why it ended too early, or ""."""
    gc.freeze()  # a collection in the worker would touch, and so copy, every object of the server
    ours, theirs = os.pipe()
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        # The forked process must never run the server's code after this block.
        try:
            os.setpgid(0, 0)
            die_with(server)
            os.close(ours)
            os.close(answers)
            null = os.open(os.devnull, os.O_RDWR)
            for standard in range(3):
                os.dup2(null, standard)
            send = sender(theirs, job)
            limit_memory(job.megabytes)
            work(job, exercise, parts, folder, send)
            send(DONE)
        finally:
            os._exit(0)
    with contextlib.suppress(OSError):  # both processes do it, because either may come first
        os.setpgid(pid, pid)
    os.close(theirs)
    done, in_time = forward(ours, answers, pid, job)
    os.close(ours)
    # If the pipe closed too early, either the worker has ended or the learner's code closed it. Wait a second to see.
    status = reap(pid, grace=0.0 if done or not in_time else 1.0)
    if done:
        return ""
    return ended_early(status) if in_time else too_slow(job.seconds)


def forward(source: int, target: int, pid: int, job: Job) -> tuple[bool, bool]:
    """Copy a worker's events until it is done, has ended or is too slow. Return (done, in time)."""
    rest, done = b"", line_of(job, DONE).strip()
    deadline = time.monotonic() + PATIENCE * job.seconds
    while time.monotonic() < deadline and cpu_seconds(pid) < job.seconds:
        ready = select.select([source, 0], [], [], 0.1)[0]
        if 0 in ready:  # no job comes before the last is answered, so stdin has ended and the owner is gone
            os._exit(1)  # and the worker with it
        if not ready:
            os.write(target, b"\n")
            continue
        data = os.read(source, 65536)
        if not data:
            return False, True
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line == done:
                return True, True
            os.write(target, line + b"\n")
    return False, False


def reap(pid: int, grace: float) -> int:
    """Wait `grace` seconds for a worker's end, then kill its group. Return its exit status, or minus a signal."""
    deadline = time.monotonic() + grace
    gone, status = os.waitpid(pid, os.WNOHANG)
    while not gone and time.monotonic() < deadline:
        time.sleep(0.005)
        gone, status = os.waitpid(pid, os.WNOHANG)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    if not gone:
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def cpu_seconds(pid: int) -> float:
    """Return the processor time in seconds that one of our processes has used (man 5 proc, stat: utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def die_with(server: int) -> None:
    """Make the system kill this process when the server ends (man 2 PR_SET_PDEATHSIG). Exit if it has already ended."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)


def limit_memory(megabytes: int) -> None:
    """Limit this process to `megabytes` more private memory than it has now.

    At the soft limit the learner's line gets an error. The hard limit leaves 256 MB more to explain it.
    """
    import resource

    status = Path("/proc/self/status").read_text()
    now = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    limit = now + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit + 256_000_000))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file behind


def work(job: Job, exercise: Exercise, parts: Iterable[Part], folder: Path, send: Send) -> None:
    """Run some parts of an exercise on the learner's code, in this process."""
    os.chdir(job.folder)
    sys.path += [entry for entry in job.path if entry not in sys.path]
    output = Output(send)
    sys.stdout = sys.stderr = output
    sys.stdin = io.StringIO()
    for name, wrong in judge.judge(job.source, exercise, parts, folder):
        send({"part": name, "wrong": wrong})
    if output.dropped:
        send({"dropped": output.dropped})


class Output(io.TextIOBase):
    """A stream that sends the learner's prints at once, up to a limit, so that a call that never returns loses none."""

    def __init__(self, send: Send) -> None:
        self._send, self._room, self.dropped = send, MAX_OUTPUT, 0

    def write(self, text: str) -> int:
        if kept := text[: self._room]:
            self._send({"out": kept})
        self._room -= len(kept)
        self.dropped += len(text) - len(kept)
        return len(text)

    def writable(self) -> bool:
        return True


if __name__ == "__main__":
    main(*cast(Any, sys.argv[1:]))
