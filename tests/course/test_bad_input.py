"""Harmful learners' code gets a message in the learner's terms, and the next check still works."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from minillm.course.check import PartResult, Report, grade
from minillm.course.sandbox import CAN_FORK
from minillm.course.source import from_text
from tests.course.toy import DOUBLE

GOOD = "def double(x):\n    return 2 * x\n"
linux = pytest.mark.skipif(not CAN_FORK, reason="only Linux has a worker of its own, with a memory limit")


def attempt(text: str, seconds: float = 20.0) -> Report:
    exercise = replace(DOUBLE, seconds=seconds)
    return grade(exercise, from_text(text, "double"), checks="tests.course.toy")


def test_a_right_answer_earns_all_and_says_so() -> None:
    report = attempt(GOOD)
    assert str(report).splitlines() == [
        "99.1 Double: 3 of 3 points",
        "  ✓ values (1)",
        "  ✓ an empty tensor (1)",
        "  ✓ in a process of its own (1)",
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", "the result is None: is there a `return` on every path?"),
        ("return x.tolist()", "the result is a list; a tensor [T, D] is wanted"),
        ("return 2 * x[:2]", "has shape [2, 2]; it should be [3, 2], which is [T, D]"),
        ("return 2 * x.T", "Yours looks like [D, T]: are two axes swapped?"),
        ("return 2 * x.half()", "has dtype float16; it should be float32"),
        ("return x * float('nan')", "has NaN in 6 of 6 places, first at T=0, D=0"),
        ("return 2 * x / 0", "has an infinity in 6 of 6 places"),
        ("return x * x", "this is the square"),
        ("return 2.1 * x", "is wrong in 6 of 6 places, by up to"),
        ("x *= 2; return x.clone()", "double changes its argument `x`"),
        (
            "x *= 2; return x.clone()",
            "look for operations that end in _, for -= and +=, and for assignments to",
        ),
        ("x.data.mul_(2); return x.clone()", "double changes its argument `x`"),
        ("x.numpy()[:] *= 2; return x.clone()", "double changes its argument `x`"),
        (
            "return x[0] + undefined",
            "raises NameError: name 'undefined' is not defined at line 2: `return x[0]",
        ),
        ("return double(x)", "double calls itself without end at line 2"),
        ("import sys; sys.exit()", "double calls sys.exit() at line 2"),
        ("raise KeyboardInterrupt", "double raises KeyboardInterrupt"),
        ("raise NotImplementedError('your code here')", "double is not written yet"),
        ("return type('T', (), {'__class__': property(lambda s: 1 / 0)})()", "ZeroDivisionError"),
        (
            "import torch; torch.isclose = lambda *a, **k: torch.tensor(True); return x + x + x",
            "your code replaces torch.isclose, on which the check relies",
        ),
        (
            "from minillm.course import expect; expect.close = lambda *a, **k: None; return x.clone()",
            "your code replaces minillm.course.expect.close",
        ),
    ],
)
def test_each_mistake_has_its_message(body: str, message: str) -> None:
    report = attempt(f"def double(x):\n    {body}\n")
    assert message in report.message, str(report)
    assert report.earned < 3


WRONG = "from minillm.course.exercise import Wrong"
PIPES = "for fd in range(3, 50):\n        try: os.write(fd, {})\n        except OSError: pass"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{WRONG}; raise Wrong('')", "double raises Wrong at line 2"),
        (f"{WRONG}; raise Wrong('all is well')", "double raises Wrong: all is well at line 2"),
        (
            f"{WRONG}\n    class W(Wrong):\n        def __str__(s): return ''\n    raise W",
            "double raises W at line 5",
        ),
        (f"{WRONG}; Wrong.__str__ = lambda self: ''; return 3 * x", "adds to minillm.course.exercise.Wrong"),
        (
            "class E(BaseException):\n        def __str__(s): raise SystemExit\n    raise E",
            "raises an exception that cannot be shown",
        ),
        ("raise SystemExit(0)", "double calls sys.exit()"),
        ("raise GeneratorExit", "double raises GeneratorExit"),
        ("import os; return 2 * x if os.fork() == 0 else 3 * x", ""),
        (
            "import torch; old = torch.isclose\n"
            "    def once(*a): torch.isclose = old; return torch.tensor(True)\n"
            "    torch.isclose = once; return 3 * x",
            "your code replaces torch.isclose",
        ),
        (
            "import sys; vars(sys.modules['tests.course.toy'])['expect'] = None; return 3 * x",
            "your code replaces tests.course.toy.expect",
        ),
        (
            "import torch\n    class T:\n        __class__ = torch.Tensor; shape = [3, 2]; dtype = torch.float32\n"
            "        def __getattr__(self, name): return lambda *a, **k: self\n    return T()",
            "the result is a T; a tensor [T, D] is wanted",
        ),
        (
            "import torch\n    class T(torch.Tensor):\n"
            "        def __torch_function__(*a): return torch.zeros(2, 2)[0, 0] > 1\n"
            "    return (3 * x).as_subclass(T)",
            "is wrong in 6 of 6 places",
        ),
    ],
)
def test_what_claims_to_be_right_earns_nothing(body: str, message: str) -> None:
    report = attempt(f"def double(x):\n    {body}\n")
    assert not report.parts[0].earned and not report.parts[2].earned, str(report)
    assert message in report.message, str(report)


@linux
def test_what_is_written_into_the_pipe_is_no_verdict() -> None:
    verdict = b'{"part": "values", "wrong": null}\n{"done": true}\nrubbish'
    lines = PIPES.format(verdict)
    report = attempt(f"import os\ndef double(x):\n    {lines}\n    return 3 * x if len(x) else 2 * x\n")
    assert [part.passed for part in report.parts] == [False, True, False]
    assert "is wrong in" in report.parts[0].wrong and "is wrong in" in report.parts[2].wrong


def test_a_failed_part_stays_failed() -> None:
    part = PartResult("values", 1)
    part.judge("it is wrong")
    part.judge(None)
    assert not part.passed and part.wrong == "it is wrong"


@pytest.mark.parametrize(
    "body",
    [
        "import torch; torch.set_default_dtype(torch.float64); return (2 * x).float()",
        "import threading, time; threading.Thread(target=time.sleep, args=(99,)).start(); return 2 * x",
        "import torch; return torch.nn.Parameter(2 * x)",
    ],
)
def test_a_right_answer_may_have_its_own_way(body: str) -> None:
    assert attempt(f"def double(x):\n    {body}\n").earned == 3


def test_what_was_said_just_above_is_not_said_again() -> None:
    body = "return 2.0 * x if len(x) == 3 else x if len(x) == 2 else None"
    assert str(attempt(f"def double(x):\n    {body}\n")).splitlines()[2:6] == [
        "  ✗ an empty tensor (1)",
        "      the result is None: is there a `return` on every path?",
        "  ✗ in a process of its own (1)",
        "      the result is wrong in 4 of 4 places, by up to 1; first at T=0, D=0: 1 where 2 is right",
    ]
    assert str(attempt("def double(x):\n    pass\n")).splitlines()[1:6] == [
        "  ✗ values (1)",
        "      the result is None: is there a `return` on every path?",
        "  ✗ an empty tensor (1)",
        "      the same as above",
        "  ✗ in a process of its own (1)",
    ]


def test_partial_credit_keeps_what_works() -> None:
    report = attempt("def double(x):\n    assert len(x)\n    return 2 * x\n")
    assert [part.earned for part in report.parts] == [1, 0, 1]
    assert "raises AssertionError" in report.message


def test_other_parameters_are_told() -> None:
    assert "double must keep its parameters: it is called with 1 values, and yours is double(x, y)" in (
        attempt("def double(x, y):\n    return x\n").message
    )


def test_an_error_on_the_way_to_the_function_is_told() -> None:
    report = attempt("import no_such_module\n" + GOOD)
    assert "raises ModuleNotFoundError: No module named 'no_such_module' at line 1" in report.message


def test_ten_megabytes_of_output_are_cut() -> None:
    report = attempt("def double(x):\n    print('y' * 10_000_000)\n    return 2 * x\n")
    assert report.earned == 3
    assert len(str(report)) < 2000 and "characters more, left out" in str(report)


@linux
def test_output_past_python_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    text = "import os\ndef double(x):\n    os.write(1, b'z' * 1_000_000)\n    return 2 * x\n"
    assert attempt(text).earned == 3
    assert capfd.readouterr().out == ""


def test_a_loop_without_end_is_stopped_and_what_it_printed_is_shown() -> None:
    report = attempt("def double(x):\n    print('round we go')\n    while True:\n        pass\n", seconds=1)
    assert report.message == "double was stopped after 1 s: does a loop never end?"
    assert [part.tried for part in report.parts] == [True, False, False]
    assert "round we go" in str(report)


def test_marks_earned_before_a_crash_stay() -> None:
    report = attempt("import os\ndef double(x):\n    return 2 * x if len(x) else os._exit(3)\n")
    assert [part.earned for part in report.parts] == [1, 0, 0]
    assert report.message.startswith("double ended the whole process with status 3")


@linux
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return torch.zeros(5_000_000_000)", "asks for 20.0 GB where 0.5 GB is the limit, at line 3"),
        ("return bytearray(20_000_000_000)", "asks for more memory where 0.5 GB is the limit, at line 3"),
        ("x = [b'x' * 1_000_000 for _ in range(20_000)]", "asks for more memory where 0.5 GB is the limit"),
        ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("import os; os.kill(os.getppid(), 9); import time; time.sleep(60)", "was killed by SIGKILL"),
        ("import os; os.closerange(3, 100)", "double ended the whole process"),
        ("import os; os.closerange(3, 100)\n    while True: pass", "double was killed by SIGKILL"),
    ],
)
def test_what_ends_a_worker_ends_only_the_worker(body: str, message: str) -> None:
    report = attempt(f"import torch\ndef double(x):\n    {body}\n")
    assert message in report.message, str(report)
    assert attempt(GOOD).earned == 3


@linux
def test_processes_left_behind_are_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    text = f"""import os, time
def double(x):
    if not os.path.exists({str(note)!r}) and os.fork() == 0:
        open({str(note)!r}, 'w').write(str(os.getpid()))
        time.sleep(600)
    while not os.path.exists({str(note)!r}) or not open({str(note)!r}).read():
        time.sleep(0.01)
    return 2 * x
"""
    assert attempt(text).earned == 3
    pid = int(note.read_text())
    for _ in range(500):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    pytest.fail("a child of the learner's code outlived the check")
