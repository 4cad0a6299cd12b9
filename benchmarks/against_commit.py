"""How much CPU time does this tree take, next to another commit? Decoding at batch 1 and 32, and the host's work.

    python benchmarks/against_commit.py --commit main~20

The commit is checked out into a temporary worktree. Each tree runs in a process of its own with one thread, and every
round measures both. The layout of a process's memory changes its speed, so both processes start again after
`--rounds-each` rounds. A ratio below 1 means that this tree takes less time. The interval is the middle 95 % of the
medians of resampled rounds (Efron 1979, "Bootstrap methods").
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from _rows import arguments, report

HERE = Path(__file__).resolve().parents[1]
# One folder for both sides: the weights are memory-mapped, and file systems differ in the pages they give.
MODEL = HERE / "minillm" / "models" / "tinytales"
PROMPT_TOKENS = 24
# The name of each measurement, and the arguments of `generate` or `host` in the measured process.
WORK: dict[str, tuple[str, int, int]] = {
    "decode, batch 1": ("generate", 1, 48),
    "decode, batch 32": ("generate", 32, 24),
    "schedule and build, 64 requests": ("host", 64, 24),
}


class Measured:
    """The measured process: a model, and the CPU seconds of some work with it."""

    def __init__(self) -> None:
        from minillm import LLM
        from minillm.model.transformer import Transformer

        self.llm = LLM(MODEL, device="cpu", max_model_len=512, enable_prefix_caching=False)
        self.entered = 0.0  # the CPU time when the model was called last
        call = Transformer.__call__

        def timed(model: Any, *args: Any, **kwargs: Any) -> Any:
            self.entered = time.process_time()
            return call(model, *args, **kwargs)

        Transformer.__call__ = timed  # type: ignore[method-assign]

    def generate(self, num_requests: int, num_tokens: int) -> float:
        """CPU seconds of `num_tokens` greedy tokens for each of `num_requests` short prompts."""
        start = time.process_time()
        self.llm.generate(self.prompts(num_requests), self.params(num_tokens), use_tqdm=False)
        return time.process_time() - start

    def host(self, num_requests: int, num_tokens: int) -> float:
        """CPU seconds between the start of a decode step and the call of the model, summed over all steps."""
        engine, seconds = self.llm.engine, 0.0
        for prompt in self.prompts(num_requests):
            engine.add_request(prompt, self.params(num_tokens))
        engine.step()  # the prompts
        while engine.has_unfinished:
            start = time.process_time()
            engine.step()
            seconds += self.entered - start
        return seconds

    def prompts(self, num_requests: int) -> list[list[int]]:
        return [[5 + i] * PROMPT_TOKENS for i in range(num_requests)]

    def params(self, num_tokens: int) -> Any:
        from minillm import SamplingParams

        return SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, detokenize=False)


def serve() -> None:
    """Answer each line of WORK's arguments on stdin with a line of CPU seconds on stdout."""
    measured = Measured()
    for line in sys.stdin:
        name, *sizes = json.loads(line)
        print(json.dumps(getattr(measured, name)(*sizes)), flush=True)


@contextmanager
def process(tree: Path) -> Iterator[Callable[[tuple[str, int, int]], float]]:
    """Start the measured process on the package of `tree`, and yield a function that asks it."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tree, env=environment, stdin=pipe, stdout=pipe, text=True) as running:
        assert running.stdin and running.stdout

        def ask(work: tuple[str, int, int]) -> float:
            print(json.dumps(work), file=running.stdin, flush=True)
            answer = running.stdout.readline()
            if not answer:
                raise SystemExit(f"The process of {tree} ended with status {running.wait()}.")
            return float(answer)

        for work in WORK.values():
            ask(work)  # the first of anything is slow
        yield ask
        running.stdin.close()


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Yield a worktree of `commit`, which is removed again."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def rounds_of(trees: Sequence[Path], rounds: int, rounds_each: int) -> dict[str, list[list[float]]]:
    """Return the CPU seconds of each work, in each round, of each of two trees.

    A round measures A B B A, and the next one B A A B: a machine whose speed drifts then favours neither side.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in WORK}
    for begin in range(0, rounds, rounds_each):
        with ExitStack() as stack:
            starting = trees if begin // rounds_each % 2 else trees[::-1]
            asked = {tree: stack.enter_context(process(tree)) for tree in starting}
            for number in range(begin, min(begin + rounds_each, rounds)):
                order = (0, 1, 1, 0) if number % 2 else (1, 0, 0, 1)
                for name, work in WORK.items():
                    seconds = [0.0, 0.0]
                    for side in order:
                        seconds[side] += asked[trees[side]](work)
                    found[name].append(seconds)
    return found


def median_interval(values: Sequence[float], draws: int = 4000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


def main() -> None:
    args = arguments(__doc__, commit="HEAD", rounds=24, rounds_each=3)
    if args.device != "cpu":
        print("It measures CPU time: run it with --device cpu.")
        raise SystemExit(77)
    with checked_out(args.commit) as other:
        found = rounds_of([HERE, other], args.rounds, args.rounds_each)
    rows: list[dict[str, Any]] = []
    for name, rounds in found.items():
        ratios = [here / there for here, there in rounds]
        low, high = median_interval(ratios)
        milliseconds = 1e3 * statistics.median(here for here, _ in rounds)
        rows.append({"name": f"{name}: CPU time", "value": milliseconds, "unit": "ms"})
        rows.append(
            {"name": f"{name}: this tree / {args.commit}", "value": statistics.median(ratios), "unit": "x"}
            | {"low": low, "high": high, "rounds": args.rounds}
        )
    report(rows, args)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
