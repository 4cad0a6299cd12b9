"""Evaluate a server with lm-eval: `python likelihood.py URL TOKENIZER TASKS OUT.json`, in the environment of clients.

TASKS is a folder with a task in YAML, `continuation`, and its documents.
"""

import json
import sys
from pathlib import Path

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager


def main() -> None:
    url, tokenizer, tasks, out = sys.argv[1:]
    arguments = {
        "base_url": f"{url}/v1/completions",
        "model": "tinytales",
        "tokenizer": tokenizer,
        "tokenizer_backend": "huggingface",
        "num_concurrent": 4,
        "max_length": 1024,
    }
    found = simple_evaluate(
        model="local-completions",
        model_args=arguments,
        tasks=["continuation"],
        task_manager=TaskManager(include_path=tasks, include_defaults=False),
        bootstrap_iters=0,
        batch_size=1,
    )
    samples = [
        {"doc": sample["doc"], "resps": sample["resps"]} for sample in found["samples"]["continuation"]
    ]
    Path(out).write_text(json.dumps({"results": found["results"]["continuation"], "samples": samples}))


if __name__ == "__main__":
    main()
