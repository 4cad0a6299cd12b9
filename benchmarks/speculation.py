"""How much faster is speculative decoding: which method, on which text, with how many drafts, for which batch?

    OMP_NUM_THREADS=1 python benchmarks/speculation.py --cpu-time 1 --json benchmarks/results/speculation-cpu.json

Each engine has the same weights and writes the same tokens. The engines run alternately; a speed-up is the median over
the rounds, with its 95 % interval (bootstrap). `--cpu-time 1` counts the processor's time in one thread, for a machine
that other programs use too. `--only` chooses parts by a regular expression: methods, batches, drafts, where-it-loses,
made-pair.

The predicted speed-up of a method is tokens per step times the time of a plain step, divided by the time of a step with
drafts. Tokens per step follow from the acceptance a and the lengths of the proposals; they are (1 - a^(k+1)) / (1 - a)
if each proposal has k drafts. The times are the medians of the steps of the same run.
"""

import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _rows import arguments, report
from against_commit import median_interval
from quantized_linear import alternately
from safetensors.torch import load_file, save_file

from minillm import LLM, SamplingParams
from minillm.course.workloads import OPENINGS
from minillm.llm import model_folder
from minillm.measure.trace import Origin, StepRecord, TokenRecord
from minillm.speculative.adaptive import Adaptive
from minillm.speculative.suffix import Suffix

TALE = (
    "Once upon a time there was a little fox. The little fox had a red ball. The little fox loved the red ball. "
    "Every day the little fox played with the red ball in the garden. "
)
TALKS = (
    '"Hello," said the cat. "Hello," said the dog. "What is your name?" asked the cat. "My name is',
    'Mom said, "Where is your hat?" Tim said, "I do not know." Mom said, "Did you look under',
    '"Can I play with you?" asked Lily. "Yes," said Ben. "What do you want to play?" asked Lily. "I want',
    'The teacher asked, "Who can help me?" Anna said, "I can help you." The teacher said, "Thank you,',
)
TEXTS = {"stories": OPENINGS[:4], "repetitive": (2 * TALE, 3 * TALE), "chat": TALKS}
FLOOR, GOAL = 0.8, 0.9  # of measured / predicted


METHODS: dict[str, dict[str, Any]] = {
    "ngram": {"method": "ngram"},
    "suffix": {"method": "suffix"},
    "draft_model": {"method": "draft_model", "model": "tinytales-draft"},
    "eagle3": {"method": "eagle3", "model": "tinytales-eagle3"},
}


@dataclass
class Sides:
    """Engines over one model, and how to measure them."""

    plain: LLM
    rounds: int
    tokens: int
    clock: Callable[[], float]

    def drafting(self, **speculation: Any) -> LLM:
        llm = self.plain.variant(speculative_config=speculation, trace=True)
        if speculation.get("adaptive"):
            llm.engine.proposer.clock = self.clock  # type: ignore[union-attr]
        return llm

    def times(
        self, engines: dict[str, LLM], prompts: Sequence[str], temperature: float = 0.0, rounds: int = 0
    ) -> dict[str, list[float]]:
        """Seconds of each engine in each round; the prompts form one batch, or run one by one if they are few."""
        params = SamplingParams(temperature=temperature, seed=1, max_tokens=self.tokens, ignore_eos=True)
        runs = {name: partial(generate, llm, prompts, params) for name, llm in engines.items()}
        tokens = {name: run() for name, run in runs.items()}
        for name, found in tokens.items():
            equal = sum(a == b for a, b in zip(found, tokens["plain"], strict=True))
            if equal < len(found):
                print(f"{name}: {equal} of {len(found)} outputs equal those without speculation")
        for llm in engines.values():
            if llm.engine.trace is not None:
                llm.engine.trace.clear()
        return alternately(runs, rounds or self.rounds, self.clock)


def generate(llm: LLM, prompts: Sequence[str], params: SamplingParams) -> list[list[int]]:
    """Tokens of the prompts, one prompt at a time if there are fewer than 8."""
    forget(llm)
    at_once = len(prompts) if len(prompts) >= 8 else 1
    outputs = []
    for i in range(0, len(prompts), at_once):
        outputs += llm.generate(list(prompts[i : i + at_once]), params, use_tqdm=False)
    return [output.outputs[0].token_ids for output in outputs]


def forget(llm: LLM) -> None:
    """Empty the trees of suffix decoding. It would know the outputs of the previous round by heart."""
    proposer = llm.engine.proposer
    if isinstance(proposer, Suffix):
        llm.engine.proposer = Suffix(proposer.num_speculative_tokens)
    elif isinstance(proposer, Adaptive) and isinstance(proposer.proposer, Suffix):
        proposer.proposer = Suffix(proposer.num_speculative_tokens)


def speedup(name: str, plain: list[float], drafting: list[float], **limits: float) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(plain, drafting, strict=True)]
    low, high = median_interval(ratios)
    value = statistics.median(ratios)
    return {
        "name": name,
        "value": value,
        "unit": "x",
        "low": low,
        "high": high,
        "rounds": len(ratios),
    } | limits


def decode_steps(llm: LLM) -> list[StepRecord]:
    """The steps that computed no part of a prompt."""
    assert llm.trace is not None
    steps = llm.trace.of(StepRecord)
    return [step for step in steps if all(part.kind == "decode" for part in step.scheduled)]


def prediction(plain: LLM, drafting: LLM, most: int) -> dict[str, float]:
    """Acceptance, tokens per step, costs and predicted speed-up, from the records of a run."""
    assert drafting.trace is not None
    steps = decode_steps(drafting)
    lengths = [part.num_drafts for step in steps for part in step.scheduled]
    origins: dict[Origin, int] = {"sampled": 0, "accepted": 0, "corrected": 0, "bonus": 0}
    for record in drafting.trace.of(TokenRecord):
        origins[record.origin] += 1
    judged = origins["accepted"] + origins["corrected"]
    acceptance = origins["accepted"] / max(1, judged)
    shares = [sum(length >= j for length in lengths) / len(lengths) for j in range(1, most + 1)]
    tokens = 1 + sum(share * acceptance**j for j, share in enumerate(shares, 1))
    seconds = statistics.fmean(_middle([step.end - step.start for step in steps]))
    without = statistics.fmean(_middle([step.end - step.start for step in decode_steps(plain)]))
    given = sum(origins.values()) - origins["sampled"] + lengths.count(0)
    return {
        "acceptance": acceptance,
        "drafts": statistics.fmean(lengths),
        "predicted tokens": tokens,
        "tokens": given / len(lengths),
        "predicted": tokens * without / seconds,
        "cost": seconds / without,
    }


def _middle(values: list[float]) -> list[float]:
    """The values without the largest twentieth: steps that another program interrupted."""
    return sorted(values)[: max(1, len(values) * 19 // 20)]


def by_method(sides: Sides) -> Iterator[dict[str, Any]]:
    """Every method on every text, with 4 drafts at batch 1."""
    traced = sides.plain.variant(trace=True)
    for text, prompts in TEXTS.items():
        engines = {"plain": traced} | {name: sides.drafting(**config) for name, config in METHODS.items()}
        times = sides.times(engines, prompts)
        for name in METHODS:
            what, found = f"{text}, {name}", prediction(traced, engines[name], 4)
            limits = {"floor": 1.4, "goal": 1.55} if (text, name) == ("stories", "draft_model") else {}
            yield speedup(f"{what}: speed-up", times["plain"], times[name], **limits)
            measured = statistics.median(a / b for a, b in zip(times["plain"], times[name], strict=True))
            yield {"name": f"{what}: acceptance", "value": found["acceptance"], "unit": "share"}
            yield {"name": f"{what}: drafts per step", "value": found["drafts"], "unit": "tokens"}
            yield {"name": f"{what}: tokens per step", "value": found["tokens"], "unit": "tokens"}
            yield {"name": f"{what}: tokens, by a", "value": found["predicted tokens"], "unit": "tokens"}
            yield {"name": f"{what}: a step / a plain step", "value": found["cost"], "unit": "x"}
            yield {"name": f"{what}: predicted speed-up", "value": found["predicted"], "unit": "x"}
            yield {
                "name": f"{what}: measured / predicted",
                "value": measured / found["predicted"],
                "unit": "x",
            } | {"floor": FLOOR, "goal": GOAL}


def by_batch(sides: Sides) -> Iterator[dict[str, Any]]:
    """Every method on stories at batch 1, 8 and 32, with `adaptive`; and the draft model without it."""
    for batch in (1, 8, 32):
        prompts = [f"{OPENINGS[i % 16]}{' very' * (i // 16)}" for i in range(max(4, batch))]
        engines = {"plain": sides.plain, "draft_model": sides.drafting(**METHODS["draft_model"])}
        engines |= {
            f"{name}, adaptive": sides.drafting(**config, adaptive=True) for name, config in METHODS.items()
        }
        times = sides.times(engines, prompts[:batch] if batch > 1 else prompts)
        for name in engines:
            if name != "plain":
                limits = {"floor": 1.0} if "adaptive" in name else {}
                row = speedup(f"batch {batch}, {name}: speed-up", times["plain"], times[name], **limits)
                yield row


def by_drafts(sides: Sides) -> Iterator[dict[str, Any]]:
    """The draft model on stories with 1 to 12 drafts."""
    config = METHODS["draft_model"]
    engines = {"plain": sides.plain}
    engines |= {
        f"k = {k}": sides.drafting(**config, num_speculative_tokens=k) for k in (1, 2, 3, 4, 5, 8, 12)
    }
    times = sides.times(engines, TEXTS["stories"], rounds=max(3, sides.rounds // 3))
    for name in engines:
        if name != "plain":
            yield speedup(f"stories, draft_model, {name}: speed-up", times["plain"], times[name])


def losing(sides: Sides, folder: Path) -> Iterator[dict[str, Any]]:
    """Sampled stories at temperatures, with sampled drafts too; and a draft with noise in its weights."""
    config, rounds = METHODS["draft_model"], max(3, sides.rounds // 3)
    warm = {"greedy drafts": {}, "sampled drafts": {"draft_sample_method": "probabilistic"}}
    for temperature in (1.0, 2.0):
        engines = {"plain": sides.plain}
        engines |= {name: sides.drafting(**config, **more) for name, more in warm.items()}
        times = sides.times(engines, TEXTS["stories"], temperature, rounds)
        for name in warm:
            yield speedup(f"temperature {temperature}, {name}: speed-up", times["plain"], times[name])
    for noise in (0.3, 3.0):
        bad = noisy(model_folder("tinytales-draft"), folder / f"noise-{noise}", noise)
        engines = {"plain": sides.plain, "bad": sides.drafting(method="draft_model", model=str(bad))}
        engines["adaptive"] = sides.drafting(method="draft_model", model=str(bad), adaptive=True)
        times = sides.times(engines, TEXTS["stories"], rounds=rounds)
        for name in ("bad", "adaptive"):
            yield speedup(f"a draft with noise {noise}, {name}: speed-up", times["plain"], times[name])


def made_pair(sides: Sides, folder: Path) -> Iterator[dict[str, Any]]:
    """tinytales with layers that add nothing, or a little noise, and tinytales itself as the draft."""
    for noise in (0.0, 0.05, 0.2):
        deep = deepened(model_folder("tinytales"), folder / f"deep-{noise}", 42, noise)
        with LLM(deep, device=sides.plain.model.device.type, max_model_len=512) as plain:
            traced = plain.variant(trace=True)
            pair = Sides(plain, max(3, sides.rounds // 3), sides.tokens, sides.clock)
            engines = {"plain": traced, "pair": pair.drafting(method="draft_model", model="tinytales")}
            times = pair.times(engines, TEXTS["stories"][:2])
            found = prediction(traced, engines["pair"], 4)
            what, limits = f"tinytales and 42 layers of noise {noise}", {} if noise else {"floor": 1.8}
            row = speedup(f"{what}: speed-up", times["plain"], times["pair"], **limits)
            yield row
            yield {"name": f"{what}: acceptance", "value": found["acceptance"], "unit": "share"}
            yield {
                "name": f"{what}: measured / predicted",
                "value": row["value"] / found["predicted"],
                "unit": "x",
            } | {"floor": FLOOR, "goal": GOAL}


def noisy(source: Path, folder: Path, noise: float) -> Path:
    """A copy of a model, with normal noise of `noise` times each weight's own deviation."""
    shutil.copytree(source, folder)
    weights, generator = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        if weight.ndim == 2:
            normal = torch.randn(weight.shape, generator=generator)
            weights[name] = (weight + noise * weight.float().std() * normal).to(weight.dtype)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def deepened(source: Path, folder: Path, num_layers: int, noise: float) -> Path:
    """A copy of a model with more layers, whose output matrices are normal noise of this deviation."""
    shutil.copytree(source, folder)
    config, weights = (
        json.loads((folder / "config.json").read_text()),
        load_file(folder / "model.safetensors"),
    )
    first, generator = config["num_hidden_layers"], torch.Generator().manual_seed(0)
    for layer in range(num_layers):
        for name, weight in list(weights.items()):
            if name.startswith("model.layers.0."):
                new = weight.clone()
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    new = (
                        noise / weight.shape[1] ** 0.5 * torch.randn(weight.shape, generator=generator)
                    ).to(weight.dtype)
                weights[name.replace("layers.0.", f"layers.{first + layer}.")] = new
    config["num_hidden_layers"] = first + num_layers
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def main() -> None:
    args = arguments(__doc__, rounds=15, tokens=64, cpu_time=0, only="")
    clock = time.perf_counter
    if args.cpu_time:
        clock = time.perf_counter = time.process_time  # type: ignore[assignment]  # the traces too
    plain = LLM("tinytales", device=args.device, max_model_len=512)
    sides, rows = Sides(plain, args.rounds, args.tokens, clock), []
    with tempfile.TemporaryDirectory() as name:
        parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
            "methods": partial(by_method, sides),
            "batches": partial(by_batch, sides),
            "drafts": partial(by_drafts, sides),
            "where-it-loses": partial(losing, sides, Path(name)),
            "made-pair": partial(made_pair, sides, Path(name)),
        }
        for part, run in parts.items():
            if re.search(args.only, part):
                rows += run()
                print(f"{part}: {len(rows)} rows", flush=True)
    report(rows, args)


if __name__ == "__main__":
    main()
