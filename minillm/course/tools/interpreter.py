"""Triton's kernels on any machine: run by Triton's interpreter, and each byte that they load or store counted.

Triton decides when it is imported whether kernels are compiled or interpreted (`TRITON_INTERPRET=1`), once for the
whole process, and `transformers` may have imported it long ago. So `interpreted` calls a function in another process:

    run = interpreted("minillm.kernels.flash_attention:flash_attention", q, k, v, causal=True)
    run.result, run.bytes_read, run.bytes_written

The interpreter runs one program after the other in numpy, so what it tells is what a kernel computes and what it asks
memory for, not how fast it is.
"""

import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

# What is told of each load and store: which it is, the address of each element, and an element's bytes.
Watcher: TypeAlias = Callable[[Literal["load", "store"], npt.NDArray[np.uint64], int], None]


@dataclass(frozen=True, slots=True)
class Interpreted:
    """What a call returned, and the bytes that its kernels loaded and stored, as often as they asked for them."""

    result: Any
    bytes_read: int
    bytes_written: int


def has_triton() -> bool:
    """Whether triton is installed: it has no build for macOS."""
    return find_spec("triton") is not None


def interpreted(target: str, /, *args: Any, timeout: float = 120.0, **kwargs: Any) -> Interpreted:
    """Call the function "module:name" in a process that interprets kernels; tensors must be on the CPU.

    Raises what the function raises, with its traceback as a note; RuntimeError where there is no triton, or if the
    process ends without an answer; subprocess.TimeoutExpired after `timeout` seconds.
    """
    if not has_triton():
        raise RuntimeError(
            f"triton is not installed, and has no build for every system (this is {sys.platform})"
        )
    root = str(Path(__file__).parents[3])
    # One thread: waking more for the interpreter's small products costs more than they are worth.
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    run = subprocess.run(
        [sys.executable, "-P", "-m", "minillm.course.tools.interpreter"],
        input=pickle.dumps((target, args, kwargs)),
        capture_output=True,
        env=environment,
        timeout=timeout,
        check=False,
    )
    if run.returncode:
        last = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"the interpreting process ended with status {run.returncode}: {''.join(last)}")
    answer = pickle.loads(run.stdout)
    if isinstance(answer, BaseException):
        raise answer
    assert isinstance(answer, Interpreted)
    return answer


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` of every load and store of the kernels that are interpreted inside the `with`, before it is done.

    Elements that a mask leaves out are not told of. What the watcher raises ends the kernel. Raises RuntimeError in a
    process that compiles.
    """
    import triton

    if not triton.knobs.runtime.interpret:
        raise RuntimeError("this process compiles kernels: it needs TRITON_INTERPRET=1 from its start")
    from triton.runtime.interpreter import interpreter_builder as builder

    def tell(kind: Literal["load", "store"], pointers: Any, mask: Any) -> None:
        seen = np.broadcast_to(mask.data, pointers.data.shape)
        watcher(kind, pointers.data[seen], pointers.get_element_ty().primitive_bitwidth // 8)

    load, store = builder.create_masked_load, builder.create_masked_store  # the unmasked ones call these

    def watched_load(pointers: Any, mask: Any, *rest: Any, **more: Any) -> Any:
        tell("load", pointers, mask)
        return load(pointers, mask, *rest, **more)

    def watched_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        tell("store", pointers, mask)
        return store(pointers, value, mask, *rest)

    builder.create_masked_load, builder.create_masked_store = watched_load, watched_store
    try:
        yield
    finally:
        del builder.create_masked_load, builder.create_masked_store  # the class has its own


def _answer(target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Interpreted | BaseException:
    moved = {"load": 0, "store": 0}

    def count(kind: Literal["load", "store"], addresses: npt.NDArray[np.uint64], size: int) -> None:
        moved[kind] += addresses.size * size

    try:
        module, name = target.split(":")
        with watching(count):
            result = getattr(import_module(module), name)(*args, **kwargs)
    except Exception as problem:
        problem.add_note("in the interpreting process:\n" + traceback.format_exc())
        return problem
    return Interpreted(result, moved["load"], moved["store"])


def _main() -> None:
    # This file is __main__ here, whose classes the caller does not know: answer as the module of the name.
    from minillm.course.tools import interpreter

    with os.fdopen(os.dup(1), "wb") as channel:
        os.dup2(2, 1)  # what the function prints must not land in the answer
        answer = interpreter._answer(*pickle.load(sys.stdin.buffer))
        channel.write(pickle.dumps(answer))


if __name__ == "__main__":
    _main()
