"""Launch a Triton kernel that is a plain function of a notebook cell, with or without a GPU.

    def add(x, y, out, n, BLOCK: "tl.constexpr"):
        ...

    launch(add, 3, x, y, out, 10, BLOCK=4)

The call does what `triton.jit(add)[(3,)](x, y, out, 10, BLOCK=4)` does in a file. With tensors on a GPU, the kernel is
compiled and runs there. With tensors on a CPU, Triton's interpreter runs it in another process and checks each access.
"""

import importlib.util
import inspect
import platform
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minillm.course.tools.interpreter import has_triton, interpreted, watching

HEADER = "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"
MARGIN = 1024  # entries around each tensor that belong to no tensor, so that an access outside is seen


def why_no_triton() -> str:
    """Return why kernels cannot run here, as a sentence, or "" where Triton is installed."""
    if has_triton():
        return ""
    system = platform.system()
    remedy = "install it with `pip install triton`" if system == "Linux" else f"this system is {system}"
    return f"Triton is not installed. It is released for Linux only; {remedy}. The cells that need it do nothing here."


def launch(kernel: Callable[..., Any], programs: int, *args: Any, **constants: Any) -> None:
    """Run `programs` programs of a kernel. It writes into the tensors among `args`.

    Tensors must be contiguous and on one device. On a CPU, raises IndexError for an access outside of all tensors, with
    the program, the tensor and the entry. Raises RuntimeError if Triton is not installed.
    """
    if problem := why_no_triton():
        raise RuntimeError(problem)
    code = textwrap.dedent(inspect.getsource(kernel))
    if any(isinstance(value, Tensor) and value.device.type == "cuda" for value in args):
        _load(code, kernel.__name__)[(programs,)](*args, **constants)
        return
    try:
        run = interpreted(f"{__name__}:interpret", code, kernel.__name__, programs, args, constants)
    except IndexError as error:
        raise IndexError(str(error)) from None  # without its note, the traceback inside Triton
    for mine, theirs in zip(args, run.result, strict=True):
        if isinstance(mine, Tensor):
            mine.copy_(theirs)


def interpret(
    code: str, name: str, programs: int, args: tuple[Any, ...], constants: dict[str, Any]
) -> list[Any]:
    """Run a kernel in this process, which interprets kernels, and return its arguments after the run."""
    from triton.runtime.errors import InterpreterError

    kernel = _load(code, name)
    framed = [_with_margins(value) if isinstance(value, Tensor) else value for value in args]
    named = dict(zip(inspect.signature(kernel.fn).parameters, framed, strict=False))
    tensors = {parameter: value for parameter, value in named.items() if isinstance(value, Tensor)}
    try:
        with watching(lambda kind, addresses, _size: _check(kind, addresses, tensors)):
            kernel[(programs,)](*framed, **constants)
    except InterpreterError as error:  # around what was raised, once for each function that it went through
        cause: BaseException = error
        while isinstance(cause, InterpreterError) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause from None
    return [value.clone() if isinstance(value, Tensor) else value for value in framed]


def _load(code: str, name: str) -> Any:
    """Return the function in `code` as a kernel. Triton reads its source, so it must be in a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cell.py"
        file.write_text(HEADER + code, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("minillm_cell", file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        kernel = getattr(module, name)
        inspect.getsource(kernel.fn)  # linecache keeps it when the file is gone
    return kernel


def _with_margins(x: Tensor) -> Tensor:
    """Return a copy of a tensor in the middle of a larger one."""
    whole = torch.zeros(x.numel() + 2 * MARGIN, dtype=x.dtype)
    inner = whole[MARGIN : MARGIN + x.numel()].view(x.shape)
    return inner.copy_(x)


def _check(
    kind: Literal["load", "store"], addresses: npt.NDArray[np.uint64], tensors: dict[str, Tensor]
) -> None:
    """Raise IndexError for the first address that is in no tensor, and name the tensor next to it."""
    from triton.runtime.interpreter import interpreter_builder

    for address in addresses.ravel().tolist():
        entries = {name: (address - x.data_ptr()) // x.element_size() for name, x in tensors.items()}
        if any(0 <= entry < tensors[name].numel() for name, entry in entries.items()):
            continue
        name = min(entries, key=lambda name: abs(entries[name] - tensors[name].numel() // 2))
        raise IndexError(
            f"Program {interpreter_builder.grid_idx[0]} {kind}s entry {entries[name]} of `{name}`, "
            f"which has {tensors[name].numel()} entries."
        )
