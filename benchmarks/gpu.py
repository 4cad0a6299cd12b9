"""Run everything that needs a GPU: the tests marked `gpu`, then every benchmark. `make gpu` calls this script.

It runs from the source tree with any Python that has torch, and installs nothing. It writes one JSON file under
benchmarks/results/ and prints one table. Both also list the tests and benchmarks that could not run, with the reason.

A script in this folder is such a benchmark if it accepts `--device cuda --json FILE`. It writes a list of rows,
`{"name": …, "value": …, "unit": …}`. If a row has a target, it also has `"floor"` (at least) or `"ceiling"` (at most),
and `"goal"`. A benchmark that cannot run on this machine prints the reason as its last line and exits with status 77.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = 77
MARKED = re.compile(r"^\s*@pytest\.mark\.gpu|^pytestmark\b.*mark\.gpu|\bmarks=.*mark\.gpu", re.MULTILINE)


def machine(device: str) -> dict[str, Any]:
    """Return the facts about the machine on which the figures were measured."""
    import torch

    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
    }
    for name in ("torch", "triton", "transformers", "numpy"):
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = None
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts["device"] = properties.name
        facts["compute_capability"] = f"{properties.major}.{properties.minor}"
        facts["memory_bytes"] = properties.total_memory
        facts["cuda"] = torch.version.cuda
    else:
        facts["device"] = platform.processor() or platform.machine()
    return facts


def tail(text: str) -> str:
    """The last line that says anything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def run_tests(tests: Path, timeout: float) -> list[dict[str, Any]]:
    """One row a test marked `gpu`: its status, its seconds, and why if it did not pass."""
    # Only the files that have such a test: others may import what this machine lacks.
    files = [
        path for path in sorted(tests.rglob("test_*.py")) if MARKED.search(path.read_text(encoding="utf-8"))
    ]
    if not files:
        return [{"name": "tests", "status": "skipped", "reason": "no test is marked gpu"}]
    if importlib.util.find_spec("pytest") is None:
        return [{"name": "tests", "status": "skipped", "reason": f"{sys.executable} has no pytest"}]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "gpu",
            "-q",
            "-W",
            "default",
            "-p",
            "no:cacheprovider",
        ]
        command += ["--continue-on-collection-errors", f"--junitxml={report}", *map(str, files)]
        try:
            done = subprocess.run(command, cwd=ROOT, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return [{"name": "tests", "status": "failed", "reason": f"not done after {timeout:.0f} s"}]
        if not report.exists():
            return [
                {"name": "tests", "status": "failed", "reason": f"pytest ended with status {done.returncode}"}
            ]
        cases = list(ElementTree.parse(report).iter("testcase"))
    rows = []
    for case in cases:
        row: dict[str, Any] = {"name": f"{case.get('classname')}::{case.get('name')}", "status": "passed"}
        row["seconds"] = float(case.get("time", 0))
        for tag, status in (("skipped", "skipped"), ("failure", "failed"), ("error", "failed")):
            found = case.find(tag)
            if found is not None:
                row |= {"status": status, "reason": (found.get("message") or status).strip().splitlines()[0]}
        rows.append(row)
    return rows


def run_benchmarks(folder: Path, device: str, only: str, timeout: float) -> list[dict[str, Any]]:
    """One row a benchmark: its status, its seconds, its own rows, and why if it did not run."""
    rows = []
    for script in sorted(folder.glob("*.py")):
        source = script.read_text(encoding="utf-8")
        if (
            script.resolve() == Path(__file__).resolve()
            or script.name.startswith("_")
            or not re.search(only, script.stem)
        ):
            continue
        row: dict[str, Any] = {"name": script.stem, "status": "skipped", "results": []}
        rows.append(row)
        if "from _rows import" not in source and ("--json" not in source or "--device" not in source):
            row["reason"] = "does not take --device and --json"
            continue
        print(f"\n{script.name} --device {device}", flush=True)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            written = Path(scratch, "rows.json")
            command = [sys.executable, str(script), "--device", device, "--json", str(written)]
            try:
                done = subprocess.run(
                    command, cwd=ROOT, timeout=timeout, capture_output=True, text=True, check=False
                )
            except subprocess.TimeoutExpired:
                row |= {"status": "failed", "reason": f"not done after {timeout:.0f} s"}
                continue
            row["seconds"] = round(time.perf_counter() - start, 2)
            print(done.stdout, end="")
            if done.returncode == SKIPPED:
                row["reason"] = tail(done.stdout)
            elif done.returncode != 0:
                print(done.stderr, end="")
                row |= {"status": "failed", "reason": tail(done.stderr)}
            elif not written.exists():
                row |= {"status": "failed", "reason": "wrote no JSON"}
            else:
                row |= {"status": "passed", "results": json.loads(written.read_text(encoding="utf-8"))}
    return rows


def table(report: dict[str, Any]) -> str:
    """The report as text: totals of the tests, every benchmark's figures, and all that did not pass."""
    lines = [
        f"{report['machine']['device']}, torch {report['machine']['torch']}, Python {report['machine']['python']}"
    ]
    count = {"passed": 0, "failed": 0, "skipped": 0}
    for row in report["tests"]:
        count[row["status"]] += 1
    lines += ["", "tests: " + ", ".join(f"{number} {status}" for status, number in count.items()), ""]
    limits = ("floor", "ceiling", "goal")
    cells = [("benchmark", "figure", "value", "unit", *limits)]
    for row in report["benchmarks"]:
        for result in row["results"]:
            value = result["value"]
            shown = f"{value:,.4g}" if isinstance(value, int | float) else str(value)
            given = [str(result.get(limit, "")) for limit in limits]
            cells.append((row["name"], result["name"], shown, result.get("unit", ""), *given))
    if len(cells) == 1:
        lines.append("benchmarks: no figures")
    else:
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            lines.append(
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            )
    for status in ("skipped", "failed"):
        left = [row for row in report["tests"] + report["benchmarks"] if row["status"] == status]
        if left:
            lines += ["", f"{status}:"] + [f"  {row['name']}: {row['reason']}" for row in left]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="GPU tests and benchmarks: one JSON, one table.")
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu: only to try the benchmarks"
    )
    parser.add_argument("--only", default="", metavar="REGEX", help="only the benchmarks whose name matches")
    parser.add_argument("--no-tests", action="store_true", help="benchmarks only")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", metavar="FOLDER")
    parser.add_argument("--benchmarks", type=Path, default=ROOT / "benchmarks", metavar="FOLDER")
    parser.add_argument(
        "--timeout", type=float, default=1800, metavar="SECONDS", help="for the tests, and for each benchmark"
    )
    options = parser.parse_args()

    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            f"{sys.executable}: torch {torch.__version__} sees no CUDA device, so nothing was run.",
            file=sys.stderr,
        )
        print("make PYTHON=/path/to/python gpu takes another Python's torch.", file=sys.stderr)
        return 2

    skipped = [{"name": "tests", "status": "skipped", "reason": "--no-tests"}]
    report = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "machine": machine(options.device),
        "tests": skipped if options.no_tests else run_tests(options.tests, options.timeout),
        "benchmarks": run_benchmarks(options.benchmarks, options.device, options.only, options.timeout),
    }
    slug = re.sub(r"[^a-z0-9]+", "-", report["machine"]["device"].lower()).strip("-") or options.device
    path = options.output / f"{report['date'][:10]}-{slug}.json"
    options.output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n" + table(report) + f"\n\nwritten to {path}")
    return int(any(row["status"] == "failed" for row in report["tests"] + report["benchmarks"]))


if __name__ == "__main__":
    sys.exit(main())
