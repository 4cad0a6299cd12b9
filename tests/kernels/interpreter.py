"""Calls a function in another process, one that interprets Triton's kernels, so that they run without a GPU.

Triton decides when it is first imported whether kernels are compiled or interpreted (`TRITON_INTERPRET=1`), once for
the whole process. The process of the tests must not interpret, because `transformers` imports triton there too. So the
tests start one interpreting process when a test first needs it (the fixture `interpreted`), and send it *cases*:
functions at the top of a module, which take and return plain values. An exception in a case is raised again in the
test. A case does not depend on the interpreter, so `tests/gpu/` calls the same case on a GPU.
"""

import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

ROOT = Path(__file__).resolve().parents[2]
# One thread for numpy's small matrix products: waking more costs several times what they are worth.
SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Worker:
    """A process with its own environment variables that calls functions, one at a time, until it is closed."""

    def __init__(self, environment: dict[str, str], timeout: float = 120.0):
        self.timeout = timeout
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kernels.interpreter"],
            cwd=ROOT,
            env=os.environ | SINGLE_THREADED | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Return `function(*args, **kwargs)`, called there. Raises its exception, with the traceback as a note.

        Raises RuntimeError if the process ends, or has not answered after `timeout` seconds and was killed.
        """
        assert self.process.stdin and self.process.stdout
        overdue = threading.Timer(self.timeout, self.process.kill)
        overdue.start()
        try:
            pickle.dump((function, args, kwargs), self.process.stdin)
            self.process.stdin.flush()
            result, error = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError):
            code = self.process.wait()
            raise RuntimeError(
                f"{function.__module__}.{function.__qualname__}: its process ended with status {code}"
                + (f", killed after {self.timeout:.0f} s" if not overdue.is_alive() else "")
            ) from None
        finally:
            overdue.cancel()
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the process, which has nothing to lose."""
        assert self.process.stdin and self.process.stdout
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def interpreter() -> Worker:
    """A process in which Triton's kernels run in its interpreter."""
    return Worker({"TRITON_INTERPRET": "1"})


def _answer(calls: BinaryIO, answers: BinaryIO) -> None:
    """The other end: call what arrives, send back its result or its exception, until the input ends."""
    while True:
        try:
            function, args, kwargs = pickle.load(calls)
        except EOFError:
            return
        except Exception as problem:  # the function's module cannot be imported here
            answer = (None, problem)
        else:
            try:
                answer = (function(*args, **kwargs), None)
            except Exception as problem:
                problem.add_note("in the other process:\n" + traceback.format_exc())
                answer = (None, problem)
        try:
            packed = pickle.dumps(answer)
            pickle.loads(packed)  # some exceptions can be written, but not read back
        except Exception:
            packed = pickle.dumps((None, RuntimeError(f"neither result nor error can be sent: {answer!r}")))
        answers.write(packed)
        answers.flush()


if __name__ == "__main__":
    # Output of a case must not mix with the answers. Only the answers go to stdout; all other output goes to stderr.
    with os.fdopen(os.dup(1), "wb") as channel:
        os.dup2(2, 1)
        _answer(sys.stdin.buffer, channel)
