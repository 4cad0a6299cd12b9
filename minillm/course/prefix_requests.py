"""Requests of chapter 09: sent one after another, and counted by what came from the prefix cache."""

from collections import Counter
from collections.abc import Sequence

from minillm.engine.request import RequestOutput
from minillm.llm import LLM
from minillm.measure.trace import StepRecord, Trace
from minillm.sampling import SamplingParams


def ask(
    llm: LLM, prompts: Sequence[Sequence[int]], max_tokens: int | Sequence[int] = 1
) -> tuple[Trace, list[RequestOutput]]:
    """Serve prompts (token ids) one after another, greedily. Return the trace of these requests alone, and the outputs.

    `max_tokens` is the length of each output, or of all of them.
    """
    llm.trace.clear()
    lengths = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else max_tokens
    outputs = []
    for prompt, length in zip(prompts, lengths, strict=True):
        params = SamplingParams(temperature=0, max_tokens=length, ignore_eos=True)
        outputs += llm.generate([list(prompt)], params)
    return llm.trace, outputs


def cached_tokens(trace: Trace) -> list[int]:
    """Return for each request, in order of its first step, how many of its tokens came from the prefix cache."""
    found: Counter[str] = Counter()
    for step in trace.of(StepRecord):
        for part in step.scheduled:
            found[part.request_id] += part.num_cached_tokens
    return list(found.values())


def prefilled_tokens(trace: Trace) -> list[int]:
    """Return for each request, in order of its first step, how many tokens its prefill computed."""
    found: Counter[str] = Counter()
    for step in trace.of(StepRecord):
        for part in step.scheduled:
            found[part.request_id] += part.num_tokens * (part.kind == "prefill")
    return list(found.values())
