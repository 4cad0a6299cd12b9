"""Compiles kernels for GPUs that are not here, and reads what the compiler made of them.

    python -m tests.kernels.offline            a table of every kernel that the package ships
    python -m tests.kernels.offline flash      only the launches whose name has `flash` in it

Nothing here repeats what a launcher knows. The public function is called on tensors of the device `meta`, which
have shapes and strides but no memory; a driver that only claims to be a GPU answers triton's questions, and each
launch stops once it is compiled. So what is judged is the very launch that a user would get: block sizes, warps,
stages, and also which strides and pointers are known to be multiples of 16, which decides whether loads are wide.

A launch to be judged is an entry `Launch(...)` of the list `LAUNCHES` in a module `tests/kernels/cases_*.py`;
`test_compiled.py` holds each one to its limits on every architecture.
"""

import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.kernels.interpreter import Worker

ARCHITECTURES = (80, 90)  # A100, H100
THREADS_PER_WARP = 32
COPY = re.compile(r"\bLDGSTS\b")  # an asynchronous copy from global to shared memory
WAIT = re.compile(
    r"\bDEPBAR\.LE SB\d+, 0x([0-9a-f]+)"
)  # until at most so many groups of copies are on their way
INSTRUCTIONS = ("HMMA", "HGMMA", "IMMA", "IGMMA", "LDG", "LDGSTS", "UTMALDG", "STL", "LDL")


@dataclass(frozen=True)
class Launch:
    """A call whose kernels are compiled and judged.

    `function(**kwargs)` calls an operation on `meta` tensors. `dots`: that its kernels must use the tensor cores,
    unless named in `without_dots`. `max_loads`: the most global loads (LDG) that any of its kernels may have.
    `prefetch`: that the kernels on tensor cores copy their tiles while they compute, and wait only for older ones.
    `least_blocks`: how many blocks of these kernels a multiprocessor must hold at once.
    """

    name: str
    function: Callable[..., Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    architectures: tuple[int, ...] = ARCHITECTURES
    dots: bool = True
    without_dots: frozenset[str] = frozenset()
    max_loads: int = 64
    prefetch: bool = False
    least_blocks: int = 1
    slow: bool = False  # left to `make test`


@dataclass(frozen=True)
class Loop:
    """An innermost loop that copies tiles to shared memory asynchronously.

    `waits`: for each of its waits, how many groups of copies may still be on their way. After a wait for 0 nothing is
    prefetched, whatever number of stages was asked for.
    """

    length: int  # instructions
    waits: tuple[int, ...]

    @property
    def prefetches(self) -> bool:
        return bool(self.waits) and min(self.waits) > 0


@dataclass(frozen=True)
class Compiled:
    """One kernel as compiled for one architecture: what it takes from the chip, and what it is made of."""

    kernel: str
    architecture: int
    warps: int
    stages: int
    registers: int  # per thread
    stack: int  # bytes per thread; values that do not fit into registers are spilled there
    shared: int  # bytes per block
    instructions: dict[str, int]
    loops: tuple["Loop", ...]

    @property
    def spills(self) -> int:
        """Instructions that move registers to the stack and back (STL, LDL)."""
        return self.instructions["STL"] + self.instructions["LDL"]

    @property
    def tensor_core_instructions(self) -> int:
        return sum(self.instructions[name] for name in ("HMMA", "HGMMA", "IMMA", "IGMMA"))

    @property
    def prefetches(self) -> bool:
        """Whether there are loops that copy asynchronously, and all of them wait for older copies only."""
        return bool(self.loops) and all(loop.prefetches for loop in self.loops)

    @property
    def blocks_per_sm(self) -> int:
        """How many blocks one multiprocessor holds at once, by registers, shared memory and warps."""
        registers_per_warp = -(-self.registers * THREADS_PER_WARP // 256) * 256  # handed out by 256
        by_registers = 65_536 // (registers_per_warp * self.warps)
        shared_memory = {80: 164, 90: 228}[self.architecture] * 1024
        by_shared = shared_memory // (self.shared + 1024)  # each block costs the system 1 KiB
        return min(by_registers, by_shared, 64 // self.warps, 32)

    @property
    def occupancy(self) -> float:
        """Resident warps, as a fraction of the 64 that a multiprocessor can hold."""
        return self.blocks_per_sm * self.warps / 64


def compiler() -> Worker:
    """A process that compiles: an interpreting one cannot, and the fake driver must not stay in the tests' own."""
    return Worker({"TRITON_INTERPRET": "0"})


def compile_launch(
    function: Callable[..., Any], kwargs: Mapping[str, Any], architecture: int
) -> list[Compiled]:
    """Every kernel that `function(**kwargs)` launches on `meta` tensors, compiled for `architecture`.

    Call it in a `compiler()`: it replaces triton's driver and its launch for good. Raises RuntimeError where the
    function launched nothing.
    """
    from triton.runtime.driver import driver

    launched = _launches_only_compile()
    launched.clear()
    driver.set_active(_ClaimsToBe(architecture))
    function(**kwargs)
    if not launched:
        raise RuntimeError(f"{function.__qualname__} launched no kernel")
    return [_read(kernel, architecture) for kernel in launched.values()]


@cache
def _launches_only_compile() -> dict[str, Any]:
    """From now on a launch ends where the kernel is compiled, and the kernel is found here, by its hash."""
    from triton.runtime.jit import JITFunction

    launched: dict[str, Any] = {}
    compile_and_launch = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = compile_and_launch(self, *args, grid=grid, warmup=True, **options)
        launched.setdefault(kernel.hash, kernel)
        return kernel

    JITFunction.run = compile_only
    return launched


class _ClaimsToBe:
    """Triton's driver for a GPU of this architecture, as far as compiling asks."""

    def __init__(self, architecture: int):
        self.architecture = architecture

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.architecture, THREADS_PER_WARP)

    def get_current_device(self) -> int:
        return self.architecture  # triton keeps its compiled kernels by device

    def get_current_stream(self, device: int) -> int:
        return 0


def _read(kernel: Any, architecture: int) -> Compiled:
    """Registers and stack from the cubin's own table, instructions from its disassembly."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(kernel.asm["cubin"])
        usage = _output(knobs.nvidia.cuobjdump.path, "-res-usage", cubin)
        # -ndf leaves out an analysis of branches that nothing here reads, and a third of the time.
        sass = _output(knobs.nvidia.nvdisasm.path, "-c", "-ndf", cubin)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of registers: {usage!r}")
    return Compiled(
        kernel=kernel.metadata.name,
        architecture=architecture,
        warps=kernel.metadata.num_warps,
        stages=kernel.metadata.num_stages,
        registers=int(found[1]),
        stack=int(found[2]),
        shared=kernel.metadata.shared,
        instructions={name: len(re.findall(rf"\b{name}\b", sass)) for name in INSTRUCTIONS},
        loops=tuple(_loops(sass)),
    )


def _loops(sass: str) -> Iterator[Loop]:
    """Every innermost loop with asynchronous copies: from a label to a branch back to it."""
    labels: dict[str, int] = {}
    latest = (
        -1
    )  # where the latest loop so far begins; one that ends after it and begins before it has it inside
    lines = sass.splitlines()
    for i, line in enumerate(lines):
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = i
        branch = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", line)
        start = labels.get(branch[1], -1) if branch else -1
        if start > latest:
            latest = start
            body = [text for text in lines[start : i + 1] if re.search(r"/\*[0-9a-f]{4,}\*/", text)]
            if any(map(COPY.search, body)):
                yield Loop(len(body), tuple(int(n, 16) for n in WAIT.findall("\n".join(body))))


def _output(tool: str, *arguments: str | Path) -> str:
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def launches(pattern: str = "") -> list[Launch]:
    """The launches of every `cases_*.py` whose names have `pattern` in them."""
    modules = [f"tests.kernels.{path.stem}" for path in sorted(Path(__file__).parent.glob("cases_*.py"))]
    every = [launch for name in modules for launch in getattr(importlib.import_module(name), "LAUNCHES", [])]
    return [launch for launch in every if pattern in launch.name]


def table(pattern: str = "") -> str:
    """Return a Markdown table with the resources that each shipped kernel uses."""
    cells = [
        (
            "launch",
            "kernel",
            "sm",
            "warps",
            "stages",
            "regs",
            "spills",
            "shared",
            "occupancy",
            "tensor",
            "LDG",
            "loop",
            "waits",
        )
    ]
    with compiler() as worker:
        for launch in launches(pattern):
            for architecture in launch.architectures:
                for k in worker.call(compile_launch, launch.function, launch.kwargs, architecture):
                    counts = (k.warps, k.stages, k.registers, k.spills, k.shared)
                    share = (f"{k.occupancy:.0%}", k.tensor_core_instructions, k.instructions["LDG"])
                    loop = [f"{[loop.length for loop in k.loops]}", f"{[loop.waits for loop in k.loops]}"]
                    cells.append((launch.name, k.kernel, str(architecture), *map(str, counts + share), *loop))
    cells.insert(1, tuple("-" * len(name) for name in cells[0]))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(f"| {row} |" for row in rows)


if __name__ == "__main__":
    from tests.kernels import offline  # under the name by which the other process knows it

    print(offline.table(*sys.argv[1:2]))
