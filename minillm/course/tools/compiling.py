"""Measure in a process of its own how torch.compile speeds up a short chain of operators.

Compilation takes seconds, needs a C++ compiler (on a CPU) or Triton (on a GPU), and replaces functions of torch. So
`compiled` asks another process, with an empty cache of compiled code and a time limit.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from minillm.measure.timing import interleaved, ratio_of

SHAPES = 8  # how many numbers of rows are tried, to count the compilations


@dataclass(frozen=True, slots=True)
class Compiled:
    """The seconds of one compilation, and the number of functions that torch generated.

    `ratio_64` and `ratio_1024` are the speed-ups over eager execution at [64, 1024] and at [1024, 1024]. `saved` is
    the seconds that one call at [1024, 1024] saves. `fixed_shapes` and `guessed_shapes` count the compilations for
    eight numbers of rows: if torch is told that shapes never change, and by default.
    """

    seconds: float
    functions: int
    ratio_64: float
    ratio_1024: float
    saved: float
    fixed_shapes: int
    guessed_shapes: int


def add_norm(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return RMSNorm after a residual addition, in seven operators, and the sum itself."""
    total = x + residual
    return total * (total.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * weight, total


def compiled(timeout: float = 20.0) -> Compiled | str:
    """Return what compiling `add_norm` gives on this machine, or the reason if it fails or takes over `timeout` s."""
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as empty:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": empty, "PYTHONPATH": path}
        try:
            run = subprocess.run(
                [sys.executable, "-P", "-m", "minillm.course.tools.compiling"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it did not finish in {timeout:g} s"
    if run.returncode:
        return (run.stderr.strip().splitlines() or [f"status {run.returncode}"])[-1]
    return Compiled(**json.loads(run.stdout.splitlines()[-1]))


def _measure() -> Compiled:
    import torch._inductor.config as options
    from torch._inductor.utils import run_and_get_code

    options.cpp_cache_precompile_headers = False  # this and the next line leave out preparations
    options.cpp.vec_isa_ok = True
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fixed, guessed = _compilations(dynamic=False), _compilations()
    seconds, functions, times = 0.0, 0, {}
    for rows in (64, 1024):
        given = [torch.randn(*shape, device=device) for shape in ((rows, 1024), (rows, 1024), (1024,))]
        torch._dynamo.reset()
        fused, began = torch.compile(add_norm, dynamic=False), time.perf_counter()
        _, code = run_and_get_code(fused, *given)
        if rows == 64:
            seconds = time.perf_counter() - began
            functions = sum("_fused_" in line and " = async_compile" in line for line in code[0].splitlines())
        sides = {"eager": partial(add_norm, *given), "fused": partial(fused, *given)}
        times[rows] = interleaved(sides, 21, warmup=2, device=device)
    ratios = {rows: ratio_of(both["eager"], both["fused"]).median for rows, both in times.items()}
    saved = median(times[1024]["eager"]) - median(times[1024]["fused"])
    return Compiled(seconds, functions, ratios[64], ratios[1024], saved, fixed, guessed)


def _compilations(dynamic: bool | None = None) -> int:
    """Return how many graphs torch makes of `add_norm` for eight numbers of rows."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    traced = torch.compile(add_norm, backend="eager", dynamic=dynamic)
    for rows in range(1, SHAPES + 1):
        traced(torch.ones(rows, 64), torch.ones(rows, 64), torch.ones(64))
    return int(counters["stats"]["unique_graphs"])


if __name__ == "__main__":
    print(json.dumps(asdict(_measure())))
