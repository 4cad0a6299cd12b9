"""`make gpu`'s driver, tried on the CPU: one JSON, one table, and what was skipped or failed is said."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GPU = ROOT / "benchmarks" / "gpu.py"

# A benchmark accepts --device and --json; these are run by position to stay short.
GOOD = "import json, sys\njson.dump([dict(name='read', value=1234.5, unit='GB/s', floor=1000)], open(sys.argv[4], 'w'))"
BAD = "raise RuntimeError('no such kernel')"
CANNOT = "import sys\nprint('needs two GPUs')\nsys.exit(77)"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        GPU,
        "--device",
        "cpu",
        "--tests",
        folder,
        "--benchmarks",
        folder,
        "--output",
        folder,
    ]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def benchmark(folder: Path, name: str, body: str) -> None:
    (folder / f"{name}.py").write_text(f"# --device --json\n{body}\n")


@pytest.mark.slow
def test_one_json_and_one_table(tmp_path: Path) -> None:
    benchmark(tmp_path, "bandwidth", GOOD)
    benchmark(tmp_path, "many", CANNOT)
    (tmp_path / "old.py").write_text("print('takes nothing')")
    result = run(tmp_path)
    assert result.returncode == 0, result.stderr
    (written,) = tmp_path.glob("*.json")
    report = json.loads(written.read_text())
    assert report["machine"]["torch"] and report["machine"]["device"]
    rows = {row["name"]: row for row in report["benchmarks"]}
    assert rows["bandwidth"]["results"] == [{"name": "read", "value": 1234.5, "unit": "GB/s", "floor": 1000}]
    assert (rows["many"]["status"], rows["many"]["reason"]) == ("skipped", "needs two GPUs")
    for said in (
        "bandwidth  read",
        "many: needs two GPUs",
        "old: does not take",
        "tests: no test is marked gpu",
    ):
        assert said in result.stdout


def test_each_limit_stands_in_its_own_column() -> None:
    results = [
        {"name": "speed", "value": 2.0, "unit": "x", "floor": 1.15, "goal": 1.5},
        {"name": "latency", "value": 0.4, "unit": "x", "ceiling": 0.5},
    ]
    report = {
        "machine": dict.fromkeys(("device", "torch", "python"), "any"),
        "tests": [],
        "benchmarks": [{"name": "both", "status": "passed", "results": results}],
    }
    *_, head, speed, latency = runpy.run_path(str(GPU))["table"](report).splitlines()
    starts = [head.index(column) for column in ("floor", "ceiling", "goal")]
    ends = [*starts[1:], None]
    assert [speed[i:j].strip() for i, j in zip(starts, ends, strict=True)] == ["1.15", "", "1.5"]
    assert [latency[i:j].strip() for i, j in zip(starts, ends, strict=True)] == ["", "0.5", ""]


@pytest.mark.slow
def test_a_failure_is_told_and_fails(tmp_path: Path) -> None:
    benchmark(tmp_path, "broken", BAD)
    benchmark(tmp_path, "bandwidth", GOOD)
    (tmp_path / "test_one.py").write_text(
        "import pytest\n@pytest.mark.gpu\ndef test_wrong(): assert 1 == 2\n"
        "@pytest.mark.gpu\n@pytest.mark.skip(reason='no TMA here')\ndef test_skipped(): pass\n"
    )
    result = run(tmp_path)
    assert result.returncode == 1
    assert "broken: RuntimeError: no such kernel" in result.stdout and "1,234" in result.stdout
    assert "0 passed, 1 failed, 1 skipped" in result.stdout and "no TMA here" in result.stdout


def test_no_device(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    result = subprocess.run([sys.executable, GPU], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "sees no CUDA device" in result.stderr
