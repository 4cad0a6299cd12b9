"""The tour: the same prompts with one optimisation after another, each measured on this machine.

A rung is a function registered below with `@rung`. It makes an engine from the plain one. Every rung gets the same
prompts, which share a beginning and end at different lengths, as the requests of a service do.

Each round runs all rungs, every other round in the reverse order, so that a slow minute of the machine does not hit
one rung alone. The figures are medians over the rounds. Peak memory is measured in a separate process, because this
one still holds the memory of other rungs. A rung is reported after its last round. A rung that cannot run here raises
`Unavailable` and is shown with the reason.
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
from minillm.llm import DRAFT_MODELS, LLM, model_folder
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
    "No one in the valley knew why",
)
PREFACE = (
    "The grandmother told a story every evening, when the rain ran down the window and the kettle sang. She told of a "
    "fox and a lantern, of a bridge that no one had built, and of a small boat that found its own way home. The "
    "children sat by the fire and listened. Each story began like any other, and none of them ended as they thought. "
    "This is the one that she told that night.\n\n"
)
SHARES = (1.0, 0.2, 0.45, 0.1, 0.6, 0.15, 0.3, 0.25)  # of max_tokens: requests do not end together
ROUNDS_OF_PROMPTS = 2  # each prompt is sent this many times, with another length each time
ROWS = 4  # the KV cache holds this many texts of full length, on every rung that has a cache


class Unavailable(Exception):
    """Raised by a rung that this machine cannot run. The message gives the reason."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of the tour. `caveat` says why it may lose on this workload, and where it pays."""

    name: str
    idea: str
    make: Callable[[LLM], LLM]
    caveat: str | None = None


LADDER: list[Rung] = []


def rung(
    name: str, idea: str, caveat: str | None = None
) -> Callable[[Callable[[LLM], LLM]], Callable[[LLM], LLM]]:
    """Register a function that makes this rung's engine from the base LLM, whose weights `llm.variant` shares."""

    def register(make: Callable[[LLM], LLM]) -> Callable[[LLM], LLM]:
        LADDER.append(Rung(name, idea, make, caveat))
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


@rung("continuous", "a finished request makes room at once")
def continuous(llm: LLM) -> LLM:
    return llm.variant(kv_cache="contiguous", num_gpu_blocks_override=ROWS, max_num_seqs=ROWS)


@rung("paged", "the same memory in blocks holds every request at once")
def paged(llm: LLM) -> LLM:
    return _paged(llm, enable_prefix_caching=False)


@rung("prefix cache", "the common beginning of all prompts is computed once")
def prefix_cache(llm: LLM) -> LLM:
    return _paged(llm, enable_prefix_caching=True)


@rung(
    "speculative",
    "a small model drafts tokens, and one step verifies several of them",
    "16 requests share each pass over the weights here, so verifying their drafts costs about as much as it saves. "
    "Speculation pays when few requests run (chapter 10).",
)
def speculative(llm: LLM) -> LLM:
    if llm.name not in DRAFT_MODELS:
        raise Unavailable(f"no draft model for {llm.name} comes with the package")
    drafting = {"method": "draft_model", "model": DRAFT_MODELS[llm.name], "num_speculative_tokens": 3}
    return _paged(llm, enable_prefix_caching=True, speculative_config=drafting)


def _paged(llm: LLM, enable_prefix_caching: bool, **arguments: Any) -> LLM:
    blocks = ROWS * llm.engine.max_model_len // llm.config.block_size
    return llm.variant(
        kv_cache="paged",
        num_gpu_blocks_override=blocks,
        max_num_seqs=ROUNDS_OF_PROMPTS * len(PROMPTS),
        enable_prefix_caching=enable_prefix_caching,
        **arguments,
    )


@dataclass(slots=True)
class Result:
    """One rung's medians, in seconds and bytes. A figure that was not measured is None, with the reason in `skipped`.

    `ttft_s` is the time from a prompt's arrival to its first token, when all prompts arrive together.
    `seconds_per_token` is the time from one token of a request to its next. `peak_bytes` is the memory that loading and
    running added to the process, or to the device on CUDA. `factor` is the throughput over that of the rung before.
    `caveat` is set if that is below 1 and the reason is known.
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
    caveat: str | None = None


@dataclass(slots=True)
class _Run:
    seconds: float
    outputs: list[RequestOutput]

    @property
    def num_tokens(self) -> int:
        return sum(len(output.outputs[0].token_ids) for output in self.outputs)

    def token_ids(self) -> list[list[int]]:
        return [output.outputs[0].token_ids for output in self.outputs]

    def ttft(self) -> float:
        return statistics.median(o.metrics.first_token_ts - o.metrics.queued_ts for o in self.outputs)

    def seconds_per_token(self) -> float:
        spans = [
            (o.metrics.last_token_ts - o.metrics.first_token_ts) / (len(o.outputs[0].token_ids) - 1)
            for o in self.outputs
        ]
        return statistics.median(spans)


def base_of(model: str, **arguments: Any) -> LLM:
    """Return the engine that every rung is made from. Its context is at most 1,024 tokens: rungs reserve whole rows.

    `arguments` are those of `LLM`, such as `trace=True`. All rungs get them too.
    """
    llm = LLM(model, **arguments)
    return llm.variant(max_model_len=min(1024, llm.engine.max_model_len))


def workload(max_tokens: int) -> tuple[list[str], list[SamplingParams]]:
    """Return every prompt twice, and for each its own output length of at most `max_tokens`."""
    prompts = [PREFACE + prompt for prompt in PROMPTS] * ROUNDS_OF_PROMPTS
    lengths = [max(2, round(max_tokens * share)) for share in SHARES + SHARES[::-1]]
    return prompts, [SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True) for n in lengths]


def _run(llm: LLM, max_tokens: int) -> _Run:
    """Send the whole workload at once."""
    prompts, params = workload(max_tokens)
    synchronize(llm.model.device)
    began = time.perf_counter()
    outputs = llm.generate(prompts, params)
    return _Run(time.perf_counter() - began, outputs)


def tour(
    model: str | None = None,
    say: Callable[[float, str], None] = lambda done, what: None,
    *,
    begun: Callable[[dict[str, Any]], None] = lambda report: None,
    measured: Callable[[dict[str, Any]], None] = lambda rung: None,
    seconds_a_round: float = 5.0,
    rounds: int = 3,
    memory: bool = True,
) -> dict[str, Any]:
    """Measure every rung and return the report that `tour.json` holds.

    `say(share done, current work)` is called all along, `begun(report)` before the first rung, with a report that has
    everything but the rungs, and `measured(rung)` for each rung as soon as it is done. The workload is sized so that
    the slowest rung takes about `seconds_a_round` in each of `rounds`. `memory=False` leaves out peak memory, which
    takes a process per rung.
    """
    model = model or os.environ.get("MINILLM_MODEL") or "tinytales"
    say(0.0, "loading the model")
    base = base_of(model)
    say(0.03, "measuring this machine")
    machine = this_machine(base.model.device)
    say(0.10, "writing a story")
    story = base.generate(PROMPTS[0], SamplingParams(max_tokens=90, temperature=0.8, seed=7))[0]
    results, engines = engines_of(base)
    say(0.12, "choosing the number of tokens")
    max_tokens = _tokens_that_fit(list(engines.values()), seconds_a_round)
    dtype = str(base.model.dtype).removeprefix("torch.")
    bound = time_at(
        decode_cost(base.model.config, context=max_tokens, bytes_per_weight=base.model.dtype.itemsize),
        machine,
        dtype,
    )
    report: dict[str, Any] = {
        "model": base.name,
        "dtype": dtype,
        "machine": machine_record(base.model.device),
        "workload": {
            "num_prompts": ROUNDS_OF_PROMPTS * len(PROMPTS),
            "max_tokens": max_tokens,
            "rounds": rounds,
            "cache_tokens": ROWS * base.engine.max_model_len,
        },
        "roofline": {
            **asdict(machine),
            "doubtful": machine.doubtful,
            "decode_seconds_at_batch_1": bound.seconds,
            "bound": bound.bound,
        },
        "story": {"prompt": story.prompt, "text": story.outputs[0].text},
        "rungs": [],
    }
    begun(report)
    runs = _measure(engines, max_tokens, rounds - 1, lambda done, what: say(0.15 + 0.4 * done, what))
    before: Result | None = None
    for i, result in enumerate(results):
        if result.skipped is None:
            say(0.55 + 0.45 * i / len(results), f"{result.name}: the last round")
            runs[result.name].append(_run(engines[result.name], max_tokens))
            _fill(result, runs[result.name], before, next(iter(runs.values()))[0])
            before = result
            if memory:
                say(0.55 + 0.45 * (i + 0.5) / len(results), f"{result.name}: peak memory")
                result.peak_bytes = _peak_in_own_process(model, result.name, max_tokens)
        report["rungs"].append(asdict(result))
        measured(report["rungs"][-1])
    say(1.0, "done")
    return report


def engines_of(base: LLM) -> tuple[list[Result], dict[str, LLM]]:
    """Return an empty result per rung, and the engines of the rungs that can run here, by name."""
    results, engines = [], {}
    for step in LADDER:
        results.append(Result(step.name, step.idea))
        try:
            engines[step.name] = step.make(base)
        except Unavailable as reason:
            results[-1].skipped = str(reason)
    return results, engines


def _tokens_that_fit(engines: list[LLM], seconds: float) -> int:
    """Return the tokens per prompt with which the slowest engine takes about `seconds` for a round."""
    trial, slowest = 8, 0.0
    for llm in engines:
        _run(llm, 2)
        slowest = max(slowest, _run(llm, trial).seconds / trial)
    longest = min(llm.engine.max_model_len for llm in engines) - 256
    # Without a cache, later tokens cost more than the trial's early ones. Twice the trial's cost is about right.
    return max(trial, min(128, longest, int(seconds / (2 * slowest))))


def _measure(
    engines: dict[str, LLM], max_tokens: int, rounds: int, say: Callable[[float, str], None]
) -> dict[str, list[_Run]]:
    """Run every engine in each of `rounds`, in alternating order such that the next round would go forwards."""
    runs: dict[str, list[_Run]] = {name: [] for name in engines}
    total = rounds * len(engines)
    for round_ in range(rounds):
        forwards = (rounds - round_) % 2 == 0
        for i, name in enumerate(engines if forwards else reversed(engines)):
            say((round_ * len(engines) + i) / total, f"{name}: round {round_ + 1} of {rounds + 1}")
            runs[name].append(_run(engines[name], max_tokens))
    return runs


def _fill(result: Result, runs: list[_Run], before: Result | None, reference: _Run) -> None:
    """Set the medians of a rung's runs, its factor over the rung before, and whether its text is the reference's."""
    result.tokens_per_second = statistics.median(run.num_tokens / run.seconds for run in runs)
    result.ttft_s = statistics.median(run.ttft() for run in runs)
    result.seconds_per_token = statistics.median(run.seconds_per_token() for run in runs)
    result.same_text = runs[0].token_ids() == reference.token_ids()
    if before is not None and before.tokens_per_second is not None:
        result.factor = result.tokens_per_second / before.tokens_per_second
        if result.factor < 1:
            result.caveat = next(step.caveat for step in LADDER if step.name == result.name)


def _peak_in_own_process(model: str, name: str, max_tokens: int) -> int | None:
    """Return the bytes that loading the model and running one rung add, or None if the system does not tell."""
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
    open_model(model_folder(model)).tokenizer()  # imports a library, whose memory is not the model's
    try:
        with peak_memory(device) as memory:
            step = next(step for step in LADDER if step.name == name)
            _run(step.make(base_of(model, max_num_seqs=1)), max_tokens)
    except NoCounterError:
        print(json.dumps(None))
    else:
        print(json.dumps(memory.added))


def save(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write tour.json, and tour.png if matplotlib is installed, and return the paths written."""
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
