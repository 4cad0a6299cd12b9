"""How fast is continuous batching for outputs of different lengths, compared with the methods that it replaces?

    python benchmarks/batching.py

256 requests arrive at once, and 32 run at a time. The output lengths are exponentially distributed, with a mean of 64
tokens and at most 256. "Continuous", "static" and "one at a time" are the same engine with three policies. "Static"
keeps computing finished rows until its whole batch is finished. `generate` is that of transformers, on left-padded
batches of 32, up to the longest request of each batch. `generate_batch` is transformers' own continuous batching, with
a KV pool of as many tokens. All of them are measured alternately in one process.
The speed is the number of requested tokens per second. Tokens computed beyond a request's own length do not count.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from _rows import arguments, report
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.utils import logging

from minillm import LLM, SamplingParams
from minillm.llm import model_folder
from minillm.measure.timing import interleaved, ratio_of, spread_of

LONGEST, PAGE = 256, 64
FLOORS = {"static": 1.8, "one at a time": 6.0, "generate": 2.5, "generate_batch": 3.0}


def workload(num_requests: int, mean: float, vocab_size: int) -> tuple[list[list[int]], list[int]]:
    """Prompts of 8 to 32 tokens, and how many each is to generate."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.exponential(mean, num_requests).astype(int), 1, LONGEST).tolist()
    prompts = [random.integers(1, vocab_size, random.integers(8, 33)).tolist() for _ in range(num_requests)]
    return prompts, lengths


def ours(llm: LLM, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    params = [
        SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True, detokenize=False) for n in lengths
    ]
    return [output.outputs[0].token_ids for output in llm.generate(prompts, params)]


def padded(model: Any, prompts: list[list[int]], lengths: list[int], at_once: int) -> list[list[int]]:
    """Batches in order of arrival, each padded on the left and run to its longest output."""
    outputs = []
    for i in range(0, len(prompts), at_once):
        batch, longest = prompts[i : i + at_once], max(lengths[i : i + at_once])
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch], device=model.device)
        out = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=longest,
            min_new_tokens=longest,
            do_sample=False,
            pad_token_id=0,
        )
        outputs += [row[width : width + n].tolist() for row, n in zip(out, lengths[i:], strict=False)]
    return outputs


def managed(
    model: Any, prompts: list[list[int]], lengths: list[int], at_once: int, pool_tokens: int
) -> list[list[int]]:
    """Through transformers' continuous batching. Its manager runs in a thread, whose mere presence halved the speed of
    every other side here (a second pool of OpenMP threads makes both sleep sooner): so it lives for one run at a time.
    """
    manager = manager_of(model, at_once, pool_tokens)
    try:
        return _results(manager, prompts, lengths)
    finally:
        manager.stop(block=True)


def _results(manager: Any, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    names = [
        manager.add_request(p, max_new_tokens=n, eos_token_id=-1)
        for p, n in zip(prompts, lengths, strict=True)
    ]
    results: dict[str, list[int]] = {}
    while len(results) < len(names):
        result = manager.get_result(timeout=60)
        if result is None:
            raise SystemExit("transformers' continuous batching has stopped giving results")
        if result.is_finished():
            results[result.request_id] = list(result.generated_tokens)
    return [results[name] for name in names]


def manager_of(model: Any, at_once: int, pool_tokens: int) -> Any:
    config = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=pool_tokens // PAGE,
        max_batch_tokens=2048,
        max_requests_per_batch=at_once,
        allow_block_sharing=False,
    )
    greedy = GenerationConfig(do_sample=False, max_new_tokens=LONGEST, eos_token_id=-1, pad_token_id=0)
    manager = model.init_continuous_batching(generation_config=greedy, continuous_batching_config=config)
    manager.start()
    return manager


def main() -> None:
    args = arguments(__doc__, requests=256, at_once=32, mean=64.0, rounds=2)
    logging.set_verbosity_error()
    folder, context = model_folder("tinytales"), 320
    # Every round brings the same prompts: none is to find them known.
    llm = LLM(
        folder,
        device=args.device,
        max_model_len=context,
        max_num_seqs=args.at_once,
        enable_prefix_caching=False,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=llm.model.dtype).to(args.device).eval()
    model.generation_config.eos_token_id = None
    batched = AutoModelForCausalLM.from_pretrained(folder, dtype=llm.model.dtype).to(args.device).eval()
    prompts, lengths = workload(args.requests, args.mean, llm.model.config.vocab_size)
    sides: dict[str, Callable[[], list[list[int]]]] = {
        "continuous": partial(ours, llm, prompts, lengths),
        "static": partial(ours, llm.variant(scheduling_policy="static"), prompts, lengths),
        "one at a time": partial(ours, llm.variant(max_num_seqs=1), prompts, lengths),
        "generate": partial(padded, model, prompts, lengths, args.at_once),
        "generate_batch": partial(managed, batched, prompts, lengths, args.at_once, args.at_once * context),
    }
    first = {name: run() for name, run in sides.items()}  # the warm-up
    same = {
        name: np.mean([a == b for a, b in zip(out, first["continuous"], strict=True)])
        for name, out in first.items()
    }
    times = interleaved(sides, args.rounds, warmup=0, device=args.device)
    total = sum(lengths)
    what = f"{args.requests} requests, {args.at_once} at once, exponential lengths of mean {np.mean(lengths):.0f}"
    rows: list[dict[str, Any]] = [
        {"name": f"{what}: output tokens, median and longest of a request", "value": total, "unit": "tok"}
        | {"median": float(np.median(lengths)), "longest": max(lengths)}
    ]
    for name, seconds in times.items():
        rows.append({"name": f"{name}: speed", "value": total / spread_of(seconds).median, "unit": "tok/s"})
        rows.append(
            {
                "name": f"{name}: requests whose tokens equal continuous batching's",
                "value": float(same[name]),
                "unit": "share",
            }
        )
    for name, floor in FLOORS.items():
        ratio = ratio_of(times[name], times["continuous"])
        rows.append(
            {"name": f"continuous / {name}", "value": ratio.median, "unit": "x", "floor": floor}
            | {"low": ratio.low, "high": ratio.high, "rounds": args.rounds}
        )
    report(rows, args)


if __name__ == "__main__":
    main()
