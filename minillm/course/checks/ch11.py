"""Chapter 11, fusion and graphs: its exercises' checks.

A kernel is checked by its loads and stores. The interpreter reports each of them, and the check looks it up in the
known tensors. `triton` is imported inside functions, because it has no build for some systems.
"""

import random
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch._dynamo  # before the first TorchDispatchMode imports it: it replaces functions that the judge watches
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from minillm.batch import Batch, Chunk
from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch11 import ADD_RMS_NORM, BYTES_MOVED, FILL_BUFFERS

Kind = Literal["load", "store"]
Counts: TypeAlias = npt.NDArray[Any]
HARMLESS = ("set_", "copy_", "detach", "reshape")  # the first two are those of the interpreter itself


class Memory(TorchDispatchMode):
    """Every tensor of a call by its addresses, with the number of loads and stores of each element.

    Tensors that the call makes are filled with NaN, so that a missing store shows. Torch may make tensors and look at
    them. An operation that computes raises Wrong.
    """

    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors: list[Tensor] = []
        self.counts: list[dict[Kind, Counts]] = []
        for given in inputs:
            self._add(given)

    def _add(self, tensor: Tensor) -> None:
        self.tensors.append(tensor)
        self.counts.append({"load": np.zeros(tensor.numel(), int), "store": np.zeros(tensor.numel(), int)})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        if name.removesuffix("_like").removeprefix("new_") in ("empty", "zeros", "ones", "full"):
            if out.numel():
                self._add(out.fill_(torch.nan))
        elif name not in HARMLESS and not func.is_view:
            raise Wrong(
                f"torch does it: your launcher calls torch's `{name}`, which is a launch of its own. Compute "
                "in the kernel, and let torch only make the empty tensors"
            )
        return out

    def watch(self, kind: Kind, addresses: Counts, size: int) -> None:
        """Count a load or store. Raise Wrong for an address outside all tensors, before it is touched."""
        touched = len(addresses)
        for tensor, counts in zip(self.tensors, self.counts, strict=True):
            start = tensor.data_ptr()
            inside = (addresses >= start) & (addresses < start + tensor.nbytes)
            np.add.at(counts[kind], (addresses[inside] - start).astype(int) // size, 1)
            addresses = addresses[~inside]
        if len(addresses) and touched > self.tensors[0].shape[-1]:
            raise Wrong(
                f"the kernel {kind}s beyond the row's end. A block has BLOCK places, but a row has only N "
                f"values. Give the {kind} mask=column < N" + (", other=0.0" if kind == "load" else "")
            )
        if len(addresses):
            raise Wrong(
                f"a {kind} goes outside the tensors, although it touches only N places. The row of program t "
                "begins at t * N, not at t * BLOCK. The weight has one row for all programs"
            )

    def times(self, kind: Kind, tensor: Tensor) -> Counts:
        """Return how often each element of one of the tensors was loaded or stored, in its shape."""
        for known, counts in zip(self.tensors, self.counts, strict=True):
            if known.data_ptr() == tensor.data_ptr():
                return counts[kind].reshape(tensor.shape)
        raise Wrong(
            "a result is a tensor that no kernel wrote into. Return the tensors that the kernel fills"
        )


def rows(num_rows: int, n: int, dtype: torch.dtype = torch.float32, size: float = 1.0) -> list[Tensor]:
    """Return x and residual [num_rows, n] and weight [n], each with other numbers before and after it in memory."""
    made = []
    for seed, shape in enumerate([(num_rows, n), (num_rows, n), (n,)]):
        around = 64 + (length := shape[0] * (shape[1] if len(shape) == 2 else 1)) + 64
        made.append((size * expect.randn(around, seed=seed)).to(dtype)[64 : 64 + length].view(shape))
    return made


def run(add_rms_norm: Answer, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Any, Memory]:
    """Return the result of the learner's function, and the loads and stores of its kernel."""
    from triton.runtime.errors import InterpreterError

    from minillm.course.tools.interpreter import watching

    memory = Memory(x, residual, weight)
    try:
        with watching(memory.watch), memory:
            results = add_rms_norm(x, residual, weight, eps)
    except InterpreterError as error:  # what happened in the kernel is its cause
        raise (error.__cause__ or error) from None
    expect.something(results)
    if not isinstance(results, tuple) or len(results) != 2:
        raise Wrong("the result is not a pair. Return norm, total")
    for result, name in zip(results, ("norm", "total"), strict=True):
        expect.tensor(result, x.shape, "T N", x.dtype, name)
    if not memory.times("store", results[1]).any():
        raise Wrong("the sum was never written. Store it too: the next block of the model adds to it")
    return results, memory


def norm_of(total: Tensor, weight: Tensor, eps: float, n: int | None = None) -> Tensor:
    total, n = total.float(), total.shape[-1] if n is None else n
    return total * torch.rsqrt((total * total).sum(-1, keepdim=True) / n + eps) * weight.float()


@ADD_RMS_NORM.part("one row", points=1)
def norm_one_row(add_rms_norm: Answer) -> None:
    x, residual, weight = rows(1, 5)
    eps, total = 0.3, x + residual
    (norm, stored), _ = run(add_rms_norm, x, residual, weight, eps)
    expect.close(stored, total, "T N", name="total")
    centred = total - total.mean()
    root = (total * total).mean(-1, keepdim=True).sqrt()
    scale_of_x = torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)
    expect.close(
        norm,
        norm_of(total, weight, eps),
        "T N",
        name="norm",
        mistakes={
            "the sum of squares is divided by BLOCK. Divide it by N, the number of values in the row": norm_of(
                total, weight, eps, 8
            ),
            "eps is outside the root. It belongs inside the root: 1 / sqrt(mean + eps)": total
            / (root + eps)
            * weight,
            "eps is left out. Add it to the mean, under the root": total / root * weight,
            "the norm is of x alone. Normalise the sum x + residual": x * scale_of_x * weight,
            "the scale is that of the mean of x alone. Take the mean over the sum x + residual": total
            * scale_of_x
            * weight,
            "your norm subtracts the mean, as LayerNorm does. RMSNorm does not": norm_of(
                centred, weight, eps
            ),
            "the weight is left out. Multiply the norm by it": norm_of(total, torch.ones(5), eps),
            "the sum of squares is not divided by N": norm_of(total, weight, eps, 1),
            "the norm is multiplied by the root. Divide by it": total * (root.square() + eps).sqrt() * weight,
        },
    )


@ADD_RMS_NORM.part("every row", points=1)
def norm_every_row(add_rms_norm: Answer) -> None:
    for num_rows, n in ((6, 12), (3, 16), (5, 2)):
        x, residual, weight = rows(num_rows, n)
        results, memory = run(add_rms_norm, x, residual, weight, 1e-3)
        rights = norm_of(x + residual, weight, 1e-3), x + residual
        for result, right, name in zip(results, rights, ("norm", "total"), strict=True):
            missing = np.flatnonzero((memory.times("store", result) == 0).any(1)).tolist()
            if missing == list(range(1, num_rows)):
                raise Wrong(
                    f"of {num_rows} rows, only the first row of `{name}` is stored. tl.program_id(0) is the "
                    "number of the program's row, and each row begins N values after the one before"
                )
            expect.that(not missing, f"{name} [{num_rows}, {n}]: row {missing and missing[0]} is not stored")
            expect.close(result, right, "T N", name=f"{name} [{num_rows}, {n}]")


@ADD_RMS_NORM.part("half precision, computed in float32", points=1)
def norm_half(add_rms_norm: Answer) -> None:
    x, residual, weight = rows(3, 12, torch.float16, size=300.0)
    weight = weight / 300
    (norm, total), _ = run(add_rms_norm, x, residual, weight, 1e-3)
    right = norm_of(x.float() + residual.float(), weight, 1e-3)
    if not bool((norm.float() - right).abs().max() < 0.02):  # NaN included
        raise Wrong(
            "the norm of values around 300 is wrong. Their squares do not fit float16, which ends at 65504. "
            "Compute in float32: .to(tl.float32) right after each load"
        )
    off = (total.float() - (x.float() + residual.float())).abs().max()
    expect.that(bool(off <= 0.5), f"total is off by {off:.3g} in float16")


@ADD_RMS_NORM.part("each value is loaded once and stored once", points=3)
def norm_bytes(add_rms_norm: Answer) -> None:
    x, residual, weight = rows(4, 24)
    results, memory = run(add_rms_norm, x, residual, weight, 1e-3)
    for result, name in zip(results, ("norm", "sum"), strict=True):
        if memory.times("load", result).any():
            raise Wrong(
                f"the kernel loads the {name} again, which it has just stored. Its values are still in "
                "registers"
            )
        most = int(memory.times("store", result).max())
        expect.that(most == 1, f"the kernel stores the {name} {most} times. Store it once")
    for given, name in ((x, "x"), (residual, "residual")):
        most = int(memory.times("load", given).max())
        expect.that(
            most == 1,
            f"the kernel loads {name} {'twice' if most == 2 else f'{most} times'}. The program holds its row "
            "in registers from the first load to the last store",
        )
    most = int(memory.times("load", weight).max())
    expect.that(most <= 4, f"the kernel loads the weight {most} times for 4 rows. Load it once per program")


BLOCK_SIZE, WIDTH, SIZES = 4, 6, [1, 3, 4, 7]
ROWS = ("token_ids", "positions", "slot_mapping", "seq_lens")


def decode(*lengths: int, first: int = 0) -> Batch:
    """Return a step of requests with these numbers of cached tokens, each in its own blocks, from block `first` on."""
    chunks, block = [], first
    for i, length in enumerate(lengths):
        needed = -(-(length + 1) // BLOCK_SIZE)
        chunks.append(Chunk([11 + i], length, list(range(block, block + needed))))
        block += needed
    return Batch.of(chunks, BLOCK_SIZE)


def buffers_of(size: int = SIZES[-1], width: int = WIDTH) -> Batch:
    """Return buffers in which a large step with long texts has filled every row."""
    chunks = [
        Chunk([90 + i], width * BLOCK_SIZE - 2, list(range(40 + i * width, 40 + (i + 1) * width)))
        for i in range(size)
    ]
    return Batch.of(chunks, BLOCK_SIZE)


def recorded(buffers: Batch) -> dict[str, Tensor]:
    """Return the tensors themselves, which are all that a recording knows of the buffers."""
    return {name: getattr(buffers, name) for name in (*ROWS, "block_tables")}


def filled(fill_buffers: Answer, batch: Batch, buffers: Batch | None = None) -> tuple[int, dict[str, Tensor]]:
    """Return the size that the learner chooses, after a check, and the tensors that the recording then reads."""
    buffers = buffers_of() if buffers is None else buffers
    seen, before = recorded(buffers), {n: t.clone() for n, t in recorded(buffers).items()}
    addresses = {name: tensor.data_ptr() for name, tensor in seen.items()}
    given = {name: tensor.clone() for name, tensor in recorded(batch).items()}
    size = fill_buffers(buffers, batch, list(SIZES))
    changed = [name for name in given if not torch.equal(getattr(batch, name), given[name])]
    expect.that(not changed, f"your function changes {changed} of `batch`. Write only into the buffers")
    num_requests = len(batch.seq_lens)
    right = next(s for s in SIZES if s >= num_requests)
    if isinstance(size, bool) or not hasattr(size, "__index__"):
        raise Wrong(
            f"{num_requests} requests fit a recording of one of the sizes {SIZES}, but your answer is {size!r}"
        )
    if size not in SIZES:
        raise Wrong(f"the answer is {size}; it should be one of the recorded sizes {SIZES}")
    if size < num_requests:
        raise Wrong(f"size {size} has no row for request {size} of {num_requests}")
    if size != right and right == num_requests:
        raise Wrong(
            f"for {num_requests} requests you choose {size}, but there is a recording of exactly {right}"
        )
    expect.that(
        size == right,
        f"for {num_requests} requests you choose {size}; {right} is the least that has room. Each extra row "
        "is extra work",
    )
    if all(torch.equal(seen[name], before[name]) for name in seen) or any(
        getattr(buffers, name) is not seen[name] or seen[name].data_ptr() != addresses[name] for name in seen
    ):
        raise Wrong(
            "the recording never sees the step. It reads from the addresses of the buffers' tensors, but you "
            "replaced these tensors or wrote elsewhere. Write into them: copy_, fill_, or assignment to a "
            "slice"
        )
    return size, seen


@FILL_BUFFERS.part("the size", points=1)
def fill_size(fill_buffers: Answer) -> None:
    for num_requests in (2, 3, 4, 5, 1, 7):
        filled(fill_buffers, decode(*range(num_requests)))


@FILL_BUFFERS.part("the rows of the requests", points=1)
def fill_rows(fill_buffers: Answer) -> None:
    batch = decode(9, 2)
    _, seen = filled(fill_buffers, batch)
    for name in ROWS:
        got, right = seen[name][:2].tolist(), getattr(batch, name).tolist()
        expect.that(got == right, f"{name} of the 2 requests is {got} in the buffers; it should be {right}")
    width = batch.block_tables.shape[1]
    got, right = seen["block_tables"][:2, :width].tolist(), batch.block_tables.tolist()
    short = [row[:-1] for row in got] == [row[:-1] for row in right]
    expect.that(
        got == right or not short,
        "the table's last column is not copied. The newest tokens are in that block",
    )
    expect.that(got == right, f"the block tables are {got} in the buffers; they should begin with {right}")


@FILL_BUFFERS.part("the rows of padding", points=2)
def fill_padding(fill_buffers: Answer) -> None:
    for num_requests in (2, 5):
        size, seen = filled(fill_buffers, decode(*[6] * num_requests))
        for row in range(num_requests, size):
            slot, length = int(seen["slot_mapping"][row]), int(seen["seq_lens"][row])
            if slot == 0:
                raise Wrong(
                    f"row {row}, which is padding, has slot 0. But slot 0 belongs to a token, which would be "
                    "overwritten. Set the slot to -1"
                )
            expect.that(
                slot == -1,
                f"row {row} of {size} is padding, but still has slot {slot}. A row of padding writes over a "
                "token of another request. Set its slot to -1",
            )
            if length == 1:
                raise Wrong(
                    f"row {row}, which is padding, has length 1, so it would read a block. Set its length to 0"
                )
            expect.that(
                length == 0,
                f"row {row} of {size} is padding, but still has length {length}. A row of padding reads "
                f"{length} tokens for nothing, from blocks that may belong to another request. Set its length "
                "to 0",
            )


@FILL_BUFFERS.part("what fits no recording", points=1)
def fill_refused(fill_buffers: Answer) -> None:
    prompt, beside = Chunk([5, 6], 0, [0]), Chunk([5], 9, [1, 2, 3])
    cases = {
        "8 requests; the largest recording has 7 rows": decode(*[3] * 8),
        "a request that computes two tokens (a prompt)": Batch.of([prompt], BLOCK_SIZE),
        "a prompt's two tokens next to a decode": Batch.of([beside, prompt], BLOCK_SIZE),
        f"a block table wider than the recorded {WIDTH} columns": decode(3, WIDTH * BLOCK_SIZE),
    }
    for name, batch in cases.items():
        buffers = buffers_of()
        seen, before = recorded(buffers), {n: t.clone() for n, t in recorded(buffers).items()}
        size = fill_buffers(buffers, batch, list(SIZES))
        expect.that(
            size is None, f"{name}: no recording fits, so the answer must be None, but it is {size!r}"
        )
        same = all(torch.equal(seen[n], before[n]) for n in seen)
        expect.that(
            same, f"{name}: your function returned None, but the buffers have changed. Check first, then copy"
        )


@FILL_BUFFERS.part("forty steps, replayed", points=1)
def fill_replayed(fill_buffers: Answer) -> None:
    chance, buffers = random.Random(0), buffers_of()
    for number in range(40):
        lengths = [chance.randrange(1, WIDTH * BLOCK_SIZE - 1) for _ in range(chance.randint(1, 7))]
        batch = decode(*lengths, first=chance.randrange(20))
        direct = step(recorded(batch), len(lengths))
        size, seen = filled(fill_buffers, batch, buffers)
        written, read = step(seen, size)
        expect.that(
            (written, read[: len(lengths)]) == direct and not any(read[len(lengths) :]),
            f"step {number}, of {len(lengths)} requests, reuses the buffers of earlier steps. The recording "
            f"of size {size} does not write and read the slots that the step itself uses",
        )


def step(rows: dict[str, Tensor], size: int) -> tuple[dict[int, tuple[int, int]], list[list[int]]]:
    """Return what a decode step writes, slot by slot, and the slots that each row reads, as the kernels do."""
    token, position, slot, length = (rows[name][:size].tolist() for name in ROWS)
    table = rows["block_tables"].tolist()
    written = {slot[i]: (token[i], position[i]) for i in range(size) if slot[i] >= 0}
    read = [
        [table[i][p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in range(length[i])]
        for i in range(size)
    ]
    return written, read


Chain = list[tuple[str, list[str]]]


def moved(
    chain: Chain,
    kernels: list[int],
    sizes: dict[str, int],
    results: list[str],
    *,
    writes: Callable[[list[str], set[str], set[str]], set[str]] = lambda made, later, results: (
        set(made) & (later | results)
    ),
    once: Literal["a kernel", "an operation", "ever"] = "a kernel",
) -> int:
    """Return the bytes. `writes` tells which of a kernel's tensors are written, `once` when none is read again."""
    total, start, ever = 0, 0, set[str]()
    for length in kernels:
        inside, after = chain[start : start + length], chain[start + length :]
        made = [output for output, _ in inside]
        reads = [name for _, inputs in inside for name in inputs if name not in made]
        if once != "an operation":
            reads = [name for name in set(reads) if once == "a kernel" or name not in ever]
        ever |= set(reads)
        later = {name for _, inputs in after for name in inputs}
        total += sum(sizes[name] for name in [*reads, *writes(made, later, set(results))])
        start += length
    return total


def sizes_of(chain: Chain) -> dict[str, int]:
    """Return a size for every tensor of a chain, so that all sums of sizes differ."""
    names = dict.fromkeys(
        [*(name for _, inputs in chain for name in inputs), *(output for output, _ in chain)]
    )
    return {name: 1000 * 4**i for i, name in enumerate(names)}


BYTES_MISTAKES: dict[str, Callable[..., int]] = {
    "the cuts are ignored: you count as if every operation were a kernel": (
        lambda chain, kernels, sizes, results: moved(chain, [1] * len(chain), sizes, results)
    ),
    "only reads are counted. Count also the bytes that the kernels write": partial(
        moved, writes=lambda made, later, results: set()
    ),
    "what a kernel makes only for itself stays in registers, and is not written": partial(
        moved, writes=lambda made, later, results: set(made)
    ),
    "a kernel reads a tensor once, however many of its operations use it": partial(
        moved, once="an operation"
    ),
    "a tensor that a later kernel reads, or that is a result, is written, even if the kernel goes on after it": partial(
        moved, writes=lambda made, later, results: {made[-1]}
    ),
    "what passes between kernels goes through memory. It is written as well as read": partial(
        moved, writes=lambda made, later, results: set(made) & results
    ),
    "the results themselves are written too, even if no operation of the chain reads them": partial(
        moved, writes=lambda made, later, results: set(made) & later
    ),
    "the registers are lost after a kernel. The next kernel that uses a tensor reads it again": partial(
        moved, once="ever"
    ),
}


def check_bytes(
    bytes_moved: Answer, cases: Iterable[tuple[Chain, list[int], list[str]]], *unseen: str
) -> None:
    """Compare for each (chain, kernels, results). The mistakes that begin with `unseen` do not show on these."""
    mistakes = {text: make for text, make in BYTES_MISTAKES.items() if not text.startswith(unseen or "-")}
    arguments = [(chain, kernels, sizes_of(chain), results) for chain, kernels, results in cases]
    expect.cases(bytes_moved, moved, arguments, mistakes=mistakes)


NORM: Chain = [("total", ["x", "r"]), ("square", ["total"]), ("scale", ["square"]), ("y", ["total", "scale"])]
TWICE: Chain = [("a", ["x", "w"]), ("b", ["a", "x"]), ("c", ["b", "w"]), ("d", ["c", "x"])]
FAR: Chain = [("a", ["x"]), ("b", ["a"]), ("c", ["b"]), ("d", ["c"]), ("e", ["d", "a"])]


@BYTES_MOVED.part("a kernel for each operation", points=1)
def bytes_unfused(bytes_moved: Answer) -> None:
    cases = [(NORM, [1] * 4, ["y", "total"]), (TWICE, [1] * 4, ["d"]), (FAR, [1] * 5, ["e"])]
    check_bytes(bytes_moved, cases, "the cuts", "a tensor that a later", "what a kernel", "a kernel reads")


@BYTES_MOVED.part("one kernel for all", points=1)
def bytes_fused(bytes_moved: Answer) -> None:
    cases = [(NORM, [4], ["y", "total"]), (TWICE, [4], ["d"]), (FAR, [5], ["e"])]
    check_bytes(bytes_moved, cases, "what passes", "the registers")


@BYTES_MOVED.part("any cut of any chain", points=2)
def bytes_cut(bytes_moved: Answer) -> None:
    cases = [(FAR, kernels, ["e"]) for kernels in ([2, 1, 2], [3, 2], [1, 4])] + [
        ([("y", ["x"])], [1], ["y"])
    ]
    for kernels in ([2, 2], [1, 3], [3, 1], [1, 2, 1]):
        cases += [(NORM, kernels, ["y", "total"]), (TWICE, kernels, ["d", "a"])]
    dice = random.Random(0)
    for _ in range(40):
        names, chain = ["x", "w"], Chain()
        for i in range(7):
            chain.append((f"t{i}", dice.choices(names, k=dice.randint(1, 3))))
            names.append(f"t{i}")
        cuts = sorted(dice.sample(range(1, 7), dice.randrange(6)))
        kernels = [end - begin for begin, end in pairwise([0, *cuts, 7])]
        cases.append((chain, kernels, dice.sample(names[2:], dice.randint(1, 3))))
    check_bytes(bytes_moved, cases)
