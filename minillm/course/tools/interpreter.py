"""Run Triton kernels on any machine in Triton's interpreter, and count each byte that they load or store.

Triton decides when it is imported whether kernels are compiled or interpreted (`TRITON_INTERPRET=1`). The decision
holds for the whole process, and `transformers` may have imported Triton before. So `interpreted` calls a function in
another process:

    run = interpreted("minillm.kernels.flash_attention:flash_attention", q, k, v, causal=True)
    run.result, run.bytes_read, run.bytes_written

The interpreter runs one program after the other in NumPy. It shows what a kernel computes and which memory it
accesses, but not how fast the kernel is.
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

# A watcher gets each load and store: its kind, the address of each element, and the bytes of one element.
Watcher: TypeAlias = Callable[[Literal["load", "store"], npt.NDArray[np.uint64], int], None]


@dataclass(frozen=True, slots=True)
class Interpreted:
    """The result of a call, and the bytes of all loads and stores of its kernels. A repeated load counts again."""

    result: Any
    bytes_read: int
    bytes_written: int


def has_triton() -> bool:
    """Return whether Triton is installed. It has no build for macOS."""
    return find_spec("triton") is not None


def interpreted(target: str, /, *args: Any, timeout: float = 120.0, **kwargs: Any) -> Interpreted:
    """Call the function "module:name" in a process that interprets kernels. Tensors must be on the CPU.

    Raises the function's own exception, with its traceback as a note. Raises RuntimeError if Triton is not installed
    or the process ends without an answer, and subprocess.TimeoutExpired after `timeout` seconds.
    """
    if not has_triton():
        raise RuntimeError(
            f"Triton is not installed, and it has no build for {sys.platform} on every machine."
        )
    root = str(Path(__file__).parents[3])
    # One thread: the interpreter's matrix products are too small to share.
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
        raise RuntimeError(f"The interpreting process ended with status {run.returncode}: {''.join(last)}")
    answer = pickle.loads(run.stdout)
    if isinstance(answer, BaseException):
        raise answer
    assert isinstance(answer, Interpreted)
    return answer


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Call `watcher` before each load and store of the kernels that are interpreted inside the `with`.

    Elements that a mask leaves out are not passed on. An exception of the watcher ends the kernel. Raises RuntimeError
    in a process that compiles kernels.
    """
    import triton

    if not triton.knobs.runtime.interpret:
        raise RuntimeError("This process compiles kernels. It needs TRITON_INTERPRET=1 from its start.")
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
        builder.create_masked_load, builder.create_masked_store = load, store


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
    # This file runs as __main__, whose classes the caller cannot unpickle: answer with those of the module.
    from minillm.course.tools import interpreter

    with os.fdopen(os.dup(1), "wb") as channel:
        os.dup2(2, 1)  # the function's prints must not mix with the answer
        answer = interpreter._answer(*pickle.load(sys.stdin.buffer))
        channel.write(pickle.dumps(answer))


if __name__ == "__main__":
    _main()
