"""The scripts of this folder give the same results under minillm and under vLLM, with one import changed.

`make peers` installs vLLM into an environment of its own and runs these tests. README.md here lists what is not equal.
"""

import datetime
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minillm.llm import model_folder
from tests.peers.run import SCRIPTS

pytestmark = pytest.mark.peer

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".peers/vllm-0.32.0/bin/python"
TOLERANCE = 1e-3  # of a log-probability, in float32
ENVIRONMENT = {
    "PEER_MODEL": str(model_folder("tinytales")),
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
NAMES = [script.stem for script in sorted(SCRIPTS.glob("*.py"))]


def results_of(engine, python, folder, *scripts, **environment):
    out = folder / f"{engine}.json"
    command = [python, ROOT / "tests/peers/run.py", engine, out, *scripts]
    log = folder / f"{engine}.log"
    with log.open("w") as stream:
        done = subprocess.run(
            command,
            env={
                **os.environ,
                **ENVIRONMENT,
                **environment,
                "PYTHONPATH": str(ROOT) if engine == "minillm" else "",
            },
            cwd=folder,
            stdout=stream,
            stderr=stream,
            check=False,
        )
    assert done.returncode == 0, f"{engine} ended with {done.returncode}:\n{log.read_text()[-3000:]}"
    return json.loads(out.read_text())


def differences(ours, theirs, where="") -> Iterator[tuple[str, float]]:
    """Yield what differs and by how much: a distance between numbers, infinity for everything else."""
    if isinstance(ours, float) and isinstance(theirs, float):
        if ours != theirs:
            yield f"{where}: {ours} here, {theirs} in vLLM", abs(ours - theirs)
    elif isinstance(ours, dict) and isinstance(theirs, dict) and list(ours) == list(theirs):
        for key in ours:
            yield from differences(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{where}[{i}]")
    elif ours != theirs:
        yield f"{where}: {ours!r} here, {theirs!r} in vLLM", math.inf


def without_cached(outputs):
    """How much of a prompt is cached depends on earlier requests and the size of a block."""
    return [{**output, "num_cached_tokens": None} for output in outputs]


@pytest.fixture(scope="session")
def engines(tmp_path_factory):
    if not VLLM.exists():
        pytest.skip("vLLM is not installed: run `make peers`")
    folder = tmp_path_factory.mktemp("peers")
    return {
        "vllm": results_of("vllm", VLLM, folder),
        "minillm": results_of("minillm", sys.executable, folder),
    }


@pytest.fixture(scope="session")
def report(engines):
    rows = []
    yield rows
    write_report(
        "peers-vllm", {engine: found["versions"] for engine, found in engines.items()}, rows, TOLERANCE
    )


def write_report(name, versions, rows, tolerance):
    """Keep the results of one run in benchmarks/results."""
    today = datetime.datetime.now(datetime.UTC)
    result = {
        "date": today.isoformat(timespec="seconds"),
        "command": "make peers",
        "machine": {
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        },
        "versions": versions,
        "tolerance": tolerance,
        "scripts": rows,
    }
    path = ROOT / f"benchmarks/results/{today.date()}-{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_script_gives_the_same_under_both(name, engines, report):
    ours, theirs = (engines[engine]["scripts"][name] for engine in ("minillm", "vllm"))
    row = {"name": name, "status": "failed"}
    report.append(row)
    for engine, found in (("minillm", ours), ("vllm", theirs)):
        assert "error" not in found, f"{name} failed under {engine}:\n{found['error']}"
        for first, again in found["repeats"]:
            assert not list(differences(without_cached(first), without_cached(again)))
    if name != "prefix_caching":
        ours["outputs"], theirs["outputs"] = (
            without_cached(ours["outputs"]),
            without_cached(theirs["outputs"]),
        )
    keys = ("outputs", "facts")
    found = list(differences({key: ours[key] for key in keys}, {key: theirs[key] for key in keys}))
    wrong = [text for text, distance in found if not distance <= TOLERANCE]
    samples = [sample for output in ours["outputs"] for sample in output["outputs"]]
    row |= {
        "samples_compared": len(samples),
        "tokens_compared": sum(len(sample["token_ids"]) for sample in samples),
        "facts_compared": len(ours["facts"]),
        "pairs_repeated": len(ours["repeats"]),
        "largest_logprob_difference": max((distance for _, distance in found), default=0.0),
    }
    assert not wrong, "\n".join(wrong[:20])
    row["status"] = "passed"
