"""Chapter 10's tools: a verifier from two functions of a reader, and runs with drafts that are counted and timed."""

import gc
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from minillm.llm import LLM
from minillm.measure.timing import synchronize
from minillm.measure.trace import StepRecord, TokenRecord
from minillm.sampling import (
    Drafts,
    Sampled,
    SamplingParams,
    SamplingRow,
    Stream,
    draw,
    probabilities,
    process_logits,
    uniform,
)
from minillm.sampling.sample import NO_TOKEN, report_logprobs

Accept = Callable[[Tensor, Tensor, int, float], Any]
Residual = Callable[[Tensor, Tensor], Tensor]


def verifier(accept: Accept, residual: Residual) -> Callable[..., Sampled]:
    """Return a function for `swap(verify=...)` that uses `accept(p, q, x, u)` and `residual(p, q)`.

    `p` and `q` are distributions [V] float64, `x` is a draft and `u` the random number that the engine has for it.
    """

    def verify(
        logits: Tensor, rows: Sequence[SamplingRow], drafts: Sequence[Drafts], vocab_size: int | None = None
    ) -> Sampled:
        errors: dict[int, BaseException] = {}
        p = probabilities(process_logits(logits, rows, vocab_size, errors), rows).double()  # [N, V]
        token_ids, start = list[int](), 0
        for one in drafts:
            end = start + len(one.token_ids) + 1
            token_ids += _tokens(p[start:end], rows[start:end], one, accept, residual)
            start = end
        chosen = torch.tensor(token_ids, device=p.device)
        without = {*errors, *(row for row, token_id in enumerate(token_ids) if token_id == NO_TOKEN)}
        return Sampled(token_ids, report_logprobs(logits, rows, chosen, vocab_size, without), errors)

    return verify


def _tokens(
    p: Tensor, rows: Sequence[SamplingRow], drafts: Drafts, accept: Accept, residual: Residual
) -> list[int]:
    """Return the accepted drafts of one request, one more token, and `NO_TOKEN` for the rest of its k + 1 rows."""
    ids, q = drafts.token_ids, drafts.probs
    if ids and q is None:
        q = torch.zeros_like(p[:-1]).scatter_(1, torch.tensor(ids, device=p.device)[:, None], 1.0)
    for i, x in enumerate(ids):
        assert q is not None
        q_i = q[i].to(p.device).double()
        if not accept(p[i], q_i, x, _number(rows[i], Stream.ACCEPT)):
            corrected = _drawn(residual(p[i], q_i), _number(rows[i], Stream.RESIDUAL))
            return [*ids[:i], corrected] + [NO_TOKEN] * (len(ids) - i)
    return [*ids, _drawn(p[-1], _number(rows[-1], Stream.BONUS if ids else Stream.SAMPLE))]


def _number(row: SamplingRow, stream: Stream) -> float:
    return float(uniform([row.seed], [row.position], stream)[0])


def _drawn(weights: Tensor, u: float) -> int:
    return int(draw(weights[None], torch.tensor([u], dtype=torch.float64, device=weights.device)))


@dataclass
class Run:
    """A run with drafts: its tokens, and how they came. `seconds` has the times of each prompt, one per round.

    `verified` has a pair for each request in each step with drafts: the number of drafts, and of tokens that it got.
    `parts` has the seconds of the model's and of the proposer's part of each decode step, by prompt and step: of the
    rounds, the least disturbed one counts.
    """

    token_ids: list[list[int]] = field(default_factory=list)
    num_steps: int = 0
    verified: list[tuple[int, int]] = field(default_factory=list)
    seconds: list[list[float]] = field(default_factory=list)
    parts: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)

    @property
    def tokens_per_step(self) -> float:
        """Return the output tokens divided by the steps. The first token of a request comes with its prompt."""
        return sum(map(len, self.token_ids)) / self.num_steps

    @property
    def acceptance(self) -> float:
        """Return the share of accepted drafts among the judged ones: those after a rejection are not judged."""
        accepted = sum(tokens - 1 for _, tokens in self.verified)
        rejected = sum(tokens <= drafts for drafts, tokens in self.verified)
        return accepted / max(1, accepted + rejected)

    @property
    def model_cost(self) -> float:
        """Return the median seconds of the model's part of a decode step."""
        return median(model for model, _ in self.parts.values())

    @property
    def draft_cost(self) -> float:
        """Return the median seconds of the proposer's part of a decode step."""
        return median(draft for _, draft in self.parts.values())

    def tokens_with(self, k: int) -> float:
        """Return the mean number of tokens of a step with exactly k drafts."""
        return mean(tokens for drafts, tokens in self.verified if drafts == k)

    def speed_up(self, plain: "Run") -> float:
        """Return how many times as fast as `plain` this run is. Of each prompt, the least disturbed round counts."""
        return sum(map(min, plain.seconds)) / sum(map(min, self.seconds))


def compare(
    llm: LLM,
    methods: Mapping[str, Mapping[str, Any] | None],
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    together: bool = False,
    rounds: int = 1,
    warm_up: int = 0,
) -> dict[str, Run]:
    """Return a run of each method, a `speculative_config` or None, on the same prompts.

    The prompts run one after the other, or `together`. Methods alternate from prompt to prompt. Each first
    completes `warm_up` prompts that do not count. The prefix cache is off, so that a repetition costs the same.
    """
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(
                llm.variant(trace=True, enable_prefix_caching=False, speculative_config=config)
            )
            for name, config in methods.items()
        }
        given = [{"prompt_token_ids": list(ids)} for ids in prompts]
        groups = [given] if together else [[one] for one in given]
        short = params.clone()
        short.max_tokens = 4
        for engine in engines.values():
            engine.generate(groups[0], short, use_tqdm=False)  # the first steps of an engine are slow
            for group in groups[:warm_up]:
                engine.generate(group, params, use_tqdm=False)
        gc.collect()  # engines of earlier runs, which would be collected in the middle of this one
        runs = {name: Run(seconds=[[] for _ in groups]) for name in methods}
        order = list(engines)
        for _ in range(rounds):
            for number, group in enumerate(groups):
                for name in order:
                    _add(runs[name], engines[name], number, group, params)
                order.reverse()
        for run in runs.values():  # every round has the same tokens
            run.token_ids = run.token_ids[: len(prompts)]
            run.num_steps //= rounds
        return runs


def _add(run: Run, llm: LLM, number: int, group: Sequence[Any], params: SamplingParams) -> None:
    """Generate the outputs of group `number`, and add what happened to the run."""
    llm.trace.clear()
    began = _now(llm)
    outputs = llm.generate(group, params, use_tqdm=False)
    run.seconds[number].append(_now(llm) - began)
    run.token_ids += [list(output.outputs[0].token_ids) for output in outputs]
    tokens: Counter[str] = Counter()  # of the step whose record comes next
    step = 0
    for record in llm.trace:
        if isinstance(record, TokenRecord):
            tokens[record.request_id] += 1
        elif isinstance(record, StepRecord):
            drafted = [part for part in record.scheduled if part.drafts]
            run.verified += [(part.num_drafts, tokens[part.request_id]) for part in drafted]
            if not record.num_tokens("prefill"):
                draft = record.phases.draft
                model = record.end - record.start - draft
                before = run.parts.get((number, step), (model, draft))
                run.parts[number, step] = min(model, before[0]), min(draft, before[1])
            step += 1
            tokens.clear()
    run.num_steps += step


def _now(llm: LLM) -> float:
    synchronize(llm.model.device)
    return time.perf_counter()
