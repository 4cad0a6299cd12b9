"""The tour: the same prompts through one optimisation after another, each measured on this machine.

A rung is one function, registered below with `@rung`, that makes an engine from the plain one; every rung is then
measured the same way, on prompts that begin alike and end at unlike lengths, as the requests of a service do. Sides
are compared in turns (A B C, C B A, ...) and medians taken; peak memory is measured in a process of its own, because a
process that has run the other rungs holds their memory too. A rung that cannot run here raises `Unavailable`, and is
shown with the reason.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from minillm.engine.request import RequestOutput
from minillm.llm import LLM, model_folder
from minillm.measure.costs import decode_cost
from minillm.measure.local import this_machine
from minillm.measure.memory import NoCounterError, peak_memory, return_freed_memory_at_once
from minillm.measure.roofline import time_at
from minillm.measure.timing import machine_record, synchronize
from minillm.model.stored import open_model
from minillm.sampling import SamplingParams

PROMPTS = (
    "Once upon a time, in a village by the sea,",
    "One cold morning the fox found",
    "There was once a clockmaker who",
    "The storm had gone, and",
    "Long ago, before the bridge was built,",
    '"Where is my lantern?" asked',
    "At the market that day,",
    "Nobody in the valley knew why",
)
PREFACE = (
    "The grandmother told a story every evening, when the rain ran down the window and the kettle sang. She told of a "
    "fox and a lantern, of a bridge that nobody had built, and of a small boat that found its own way home. The "
    "children sat by the fire and listened. Each story began like any other, and none of them ended as they thought. "
    "This is the one that she told that night.\n\n"
)
SHARES = (1.0, 0.2, 0.45, 0.1, 0.6, 0.15, 0.3, 0.25)  # of max_tokens: requests do not end together
ROUNDS_OF_PROMPTS = 2  # how often the prompts come, with other lengths each time
ROWS = 4  # texts of full length that the KV cache's memory holds, on every rung that shares it


class Unavailable(Exception):
    """This machine cannot run a rung; the message says why."""


@dataclass(frozen=True, slots=True)
class Rung:
    name: str
    idea: str
    make: Callable[[LLM], LLM]


LADDER: list[Rung] = []


def rung(name: str, idea: str) -> Callable[[Callable[[LLM], LLM]], Callable[[LLM], LLM]]:
    """Register a function that makes this rung's engine from the base LLM (share its weights: `llm.variant`)."""

    def register(make: Callable[[LLM], LLM]) -> Callable[[LLM], LLM]:
        LADDER.append(Rung(name, idea, make))
        return make

    return register


@rung("naive loop", "every step computes the whole text again")
def naive(llm: LLM) -> LLM:
    return llm.variant(kv_cache="none", max_num_seqs=1)


@rung("KV cache", "keys and values are kept: a step computes one token")
def kv_cache(llm: LLM) -> LLM:
    return llm.variant(kv_cache="contiguous", max_num_seqs=1)


@rung("static batch", "one pass over the weights serves four requests")
def static_batch(llm: LLM) -> LLM:
    return llm.variant(
        kv_cache="contiguous", num_gpu_blocks_override=ROWS, scheduling_policy="static", max_num_seqs=ROWS
    )


@rung("continuous", "who has finished makes room at once")
def continuous(llm: LLM) -> LLM:
    return llm.variant(kv_cache="contiguous", num_gpu_blocks_override=ROWS, max_num_seqs=ROWS)


@rung("paged", "the same memory in blocks holds every request at once")
def paged(llm: LLM) -> LLM:
    return _paged(llm, enable_prefix_caching=False)


@rung("prefix cache", "what all prompts begin with is known already")
def prefix_cache(llm: LLM) -> LLM:
    return _paged(llm, enable_prefix_caching=True)


def _paged(llm: LLM, enable_prefix_caching: bool) -> LLM:
    blocks = ROWS * llm.engine.max_model_len // llm.config.block_size
    return llm.variant(
        kv_cache="paged",
        num_gpu_blocks_override=blocks,
        max_num_seqs=ROUNDS_OF_PROMPTS * len(PROMPTS),
        enable_prefix_caching=enable_prefix_caching,
    )


@dataclass(slots=True)
class Result:
    """One rung's medians. Seconds and bytes; None where nothing was measured, with the reason in `skipped`.

    `ttft_s` is the time from a prompt's arrival to its first token, all prompts arriving together;
    `seconds_per_token` is between one token of a request and the next; `peak_bytes` is what loading and running
    added to the process (on CUDA: to the device). `factor` is against the rung before.
    """

    name: str
    idea: str
    tokens_per_second: float | None = None
    ttft_s: float | None = None
    seconds_per_token: float | None = None
    peak_bytes: int | None = None
    factor: float | None = None
    same_text: bool | None = None
    skipped: str | None = None


@dataclass(slots=True)
class _Run:
    seconds: float
    outputs: list[RequestOutput]

    @property
    def num_tokens(self) -> int:
        return sum(len(output.outputs[0].token_ids) for output in self.outputs)

    def ttft(self) -> float:
        return statistics.median(o.metrics.first_token_ts - o.metrics.queued_ts for o in self.outputs)

    def seconds_per_token(self) -> float:
        spans = [
            (o.metrics.last_token_ts - o.metrics.first_token_ts) / (len(o.outputs[0].token_ids) - 1)
            for o in self.outputs
        ]
        return statistics.median(spans)


def _base(model: str, **arguments: Any) -> LLM:
    """The engine that every rung is made from: a context of 1,024 tokens at most, since rungs reserve whole rows."""
    llm = LLM(model, **arguments)
    return llm.variant(max_model_len=min(1024, llm.engine.max_model_len))


def _run(llm: LLM, max_tokens: int) -> _Run:
    """Every prompt twice, all arriving at once; each with a length of its own, at most `max_tokens`."""
    prompts = [PREFACE + prompt for prompt in PROMPTS] * ROUNDS_OF_PROMPTS
    lengths = [max(2, round(max_tokens * share)) for share in SHARES + SHARES[::-1]]
    params = [SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True) for n in lengths]
    synchronize(llm.model.device)
    began = time.perf_counter()
    outputs = llm.generate(prompts, params)
    return _Run(time.perf_counter() - began, outputs)


def tour(
    model: str | None = None,
    say: Callable[[float, str], None] = lambda done, what: None,
    *,
    seconds_a_round: float = 5.0,
    rounds: int = 3,
    memory: bool = True,
) -> dict[str, Any]:
    """Measure every rung and return the report that `tour.json` holds. `say(share done, what now)` is told.

    The slowest rung takes about `seconds_a_round` in each of `rounds`; the workload is sized to that.
    `memory=False` leaves out peak memory, which costs a process a rung.
    """
    model = model or os.environ.get("MINILLM_MODEL") or "tinytales"
    say(0.0, "loading the model")
    base = _base(model)
    say(0.03, "measuring this machine")
    machine = this_machine(base.model.device)
    say(0.10, "writing a story")
    story = base.generate(PROMPTS[0], SamplingParams(max_tokens=90, temperature=0.8, seed=7))[0]
    results, engines = [], {}
    for step in LADDER:
        result = Result(step.name, step.idea)
        results.append(result)
        try:
            engines[step.name] = step.make(base)
        except Unavailable as reason:
            result.skipped = str(reason)
    max_tokens = _tokens_that_fit(list(engines.values()), seconds_a_round)
    runs = _measure(engines, max_tokens, rounds, lambda done, what: say(0.15 + 0.6 * done, what))
    _fill(results, runs)
    for i, result in enumerate(results):
        if memory and result.skipped is None:
            say(0.75 + 0.25 * i / len(results), f"{result.name}: peak memory")
            result.peak_bytes = _peak_in_own_process(model, result.name, max_tokens)
    dtype = str(base.model.dtype).removeprefix("torch.")
    bound = time_at(
        decode_cost(base.model.config, context=max_tokens, bytes_per_weight=base.model.dtype.itemsize),
        machine,
        dtype,
    )
    say(1.0, "done")
    return {
        "model": base.name,
        "dtype": dtype,
        "machine": machine_record(base.model.device),
        "workload": {
            "num_prompts": ROUNDS_OF_PROMPTS * len(PROMPTS),
            "max_tokens": max_tokens,
            "rounds": rounds,
            "cache_tokens": ROWS * base.engine.max_model_len,
        },
        "roofline": {**asdict(machine), "decode_seconds_at_batch_1": bound.seconds, "bound": bound.bound},
        "story": {"prompt": story.prompt, "text": story.outputs[0].text},
        "rungs": [asdict(result) for result in results],
    }


def _tokens_that_fit(engines: list[LLM], seconds: float) -> int:
    """Tokens a prompt such that the slowest engine finishes a round in about that many seconds."""
    trial, slowest = 8, 0.0
    for llm in engines:
        _run(llm, 2)
        slowest = max(slowest, _run(llm, trial).seconds / trial)
    longest = min(llm.engine.max_model_len for llm in engines) - 256
    # Without a cache a token costs more the later it comes: plan for twice the trial's.
    return max(trial, min(128, longest, int(seconds / (2 * slowest))))


def _measure(
    engines: dict[str, LLM], max_tokens: int, rounds: int, say: Callable[[float, str], None]
) -> dict[str, list[_Run]]:
    runs: dict[str, list[_Run]] = {name: [] for name in engines}
    order, total = list(engines), rounds * len(engines)
    for round_ in range(rounds):
        for i, name in enumerate(order):
            say((round_ * len(engines) + i) / total, f"{name}: round {round_ + 1} of {rounds}")
            runs[name].append(_run(engines[name], max_tokens))
        order.reverse()
    return runs


def _fill(results: list[Result], runs: dict[str, list[_Run]]) -> None:
    """Medians of each rung's runs, its factor over the rung before, and whether it wrote what the first one wrote."""
    before: Result | None = None
    reference: list[list[int]] | None = None
    for result in results:
        if result.name not in runs:
            continue
        of_rung = runs[result.name]
        result.tokens_per_second = statistics.median(run.num_tokens / run.seconds for run in of_rung)
        result.ttft_s = statistics.median(run.ttft() for run in of_rung)
        result.seconds_per_token = statistics.median(run.seconds_per_token() for run in of_rung)
        tokens = [output.outputs[0].token_ids for output in of_rung[0].outputs]
        reference = reference or tokens
        result.same_text = tokens == reference
        if before is not None and before.tokens_per_second is not None:
            result.factor = result.tokens_per_second / before.tokens_per_second
        before = result


def _peak_in_own_process(model: str, name: str, max_tokens: int) -> int | None:
    """Bytes that loading the model and running one rung add; None where the system does not tell."""
    command = [sys.executable, "-m", "minillm.tour", model, name, str(max_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {name!r} failed:\n{done.stderr[-2000:]}")
    answer: int | None = json.loads(done.stdout.splitlines()[-1])
    return answer


def _print_peak(model: str, name: str, max_tokens: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return_freed_memory_at_once()
    open_model(model_folder(model)).tokenizer()  # imports a library, which is not the model's memory
    try:
        with peak_memory(device) as memory:
            step = next(step for step in LADDER if step.name == name)
            _run(step.make(_base(model, max_num_seqs=1)), max_tokens)
    except NoCounterError:
        print(json.dumps(None))
    else:
        print(json.dumps(memory.added))


def save(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write tour.json, and tour.png where matplotlib is installed; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "tour.json"]
    files[0].write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    try:
        from minillm.viz.tour import figure_of
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        return files
    figure = figure_of(report)
    files.append(folder / "tour.png")
    figure.savefig(files[-1])
    return files


if __name__ == "__main__":
    _print_peak(sys.argv[1], sys.argv[2], int(sys.argv[3]))
