"""The server: one thread, so that it may fork; gone when its owner is; quick; the same where there is no fork."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from minillm.course import sandbox
from minillm.course.check import grade
from minillm.course.sandbox import CAN_FORK, Event, Job, Server
from minillm.course.source import from_text
from tests.course.toy import DOUBLE

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(not CAN_FORK, reason="needs the forking server")


def job(text: str, seconds: float = 20.0) -> Job:
    return Job("99.1", "tests.course.toy", from_text(text, "double"), seconds, 500, str(ROOT), [])


def wrong(events: list[Event]) -> list[str | None]:
    return [event["wrong"] for event in events if "part" in event]


@linux
def test_the_server_has_one_thread_when_it_forks() -> None:
    server = Server(fork=True)
    try:
        server.run(job("def double(x):\n    return 2 * x\n"))
        tasks = Path(f"/proc/{server.start().pid}/task")
        assert len(list(tasks.iterdir())) == 1
    finally:
        server.close()


@linux
@pytest.mark.slow
def test_the_server_and_its_worker_die_with_their_owner(tmp_path: Path) -> None:
    """The worker is in an endless loop when the notebook's kernel is killed."""
    note = tmp_path / "pids"
    answer = f"""import os
def double(x):
    open({str(note)!r}, 'w').write(f'{{os.getppid()}} {{os.getpid()}}\\n')
    while True: pass
"""
    code = f"""from dataclasses import replace
from minillm.course.check import grade
from minillm.course.source import from_text
from tests.course.toy import DOUBLE
grade(replace(DOUBLE, seconds=600), from_text({answer!r}, "double"), checks="tests.course.toy")
"""
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not note.exists() or not note.read_text().endswith("\n"):
        assert owner.poll() is None
        time.sleep(0.05)
    owner.kill()
    owner.wait()
    pids = note.read_text().split()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_without_a_fork_the_results_are_the_same() -> None:
    """As on macOS and Windows: a fresh process a job, the time watched from here."""
    server = Server(fork=False)
    try:
        assert wrong(server.run(job("def double(x):\n    return 2 * x\n"))) == [None] * 3
        events = server.run(job("def double(x):\n    while True: pass\n", seconds=1))
        assert events[-1] == {"end": "was stopped after 1 s: does a loop never end?"}
        events = server.run(job("import os\ndef double(x):\n    os._exit(3)\n"))
        assert "status 3" in events[-1]["end"]
    finally:
        server.close()


@linux
@pytest.mark.slow
def test_a_server_that_stops_answering_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the learner's code, and while it waits for a job."""
    server = Server(fork=True)
    stopping = (
        "import os, signal\ndef double(x):\n    os.kill(os.getppid(), signal.SIGSTOP)\n    return 2 * x\n"
    )
    try:
        assert wrong(server.run(job("def double(x):\n    return 2 * x\n"))) == [None] * 3
        monkeypatch.setattr(sandbox, "SILENCE", 1.0)
        assert server.run(job(stopping))[-1] == {"end": sandbox.NO_ANSWER, "ours": True}
        os.kill(server.start().pid, signal.SIGSTOP)
        monkeypatch.setattr(sandbox, "START_UP", 1.0)
        assert server.run(job(stopping))[-1] == {"end": sandbox.NO_ANSWER, "ours": True}
    finally:
        server.close()


@pytest.mark.slow
def test_an_interrupt_leaves_the_next_check_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(fork=CAN_FORK)
    try:

        def interrupted(*_: object) -> object:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(sandbox.json, "loads", interrupted)
            with pytest.raises(KeyboardInterrupt):
                server.run(job("def double(x):\n    return 3 * x\n"))
        assert wrong(server.run(job("def double(x):\n    return 2 * x\n"))) == [None] * 3
    finally:
        server.close()


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.sys, "executable", sys.executable)
    monkeypatch.setenv("PYTHONPATH", "")
    server = Server(fork=CAN_FORK)
    monkeypatch.setattr(sandbox, "_SERVER_MODULE", "minillm.course.no_such_worker")
    try:
        assert "no_such_worker" in server.run(job(""))[-1]["end"]
    finally:
        server.close()


@linux
def test_a_check_is_quick_once_warm() -> None:
    """The median is about 30 ms on an idle machine; the limit is wide, as machines that run tests are not idle."""
    text, seconds = "def double(x):\n    return 2 * x\n", []
    for _ in range(6):
        begin = time.perf_counter()
        grade(replace(DOUBLE), from_text(text, "double"), checks="tests.course.toy")
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.5


def test_importing_the_course_does_not_need_torch() -> None:
    """So that `minillm progress` could be quick: nothing of the course's own asks for torch outside the worker."""
    code = (
        "import sys, types; package = types.ModuleType('minillm'); package.__path__ = ['minillm']\n"
        "sys.modules['minillm'] = package\n"
        "import minillm.course, minillm.course.commands; from minillm.course.exercise import find; find('01.1')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
