"""The benchmarks of kernels without a GPU: they say why they cannot run, and their ratios have the right limits."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return lambda name: runpy.run_path(str(BENCHMARKS / f"{name}.py"))


def limits(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("floor", "ceiling", "goal") if key in row}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["packed_matmul", "paged_attention", "flash_attention", "fused_layers"])
def test_a_benchmark_of_a_kernel_needs_a_gpu(name: str) -> None:
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 77, done.stderr
    assert "needs a CUDA device: asked for cpu" in done.stdout


def test_packed_products_are_judged_by_the_geometric_mean_of_their_shapes(load: Any) -> None:
    rows_of = load("packed_matmul")["rows_of"]
    times = {
        "qkv": {"minillm": [1e-6, 1e-6, 1e-6], "cuBLAS": [4e-6, 4e-6, 5e-6]},
        "o": {"minillm": [2e-6, 2e-6, 2e-6], "cuBLAS": [2e-6, 2e-6, 2e-6]},
    }
    *rows, mean = rows_of("W4A16", 1, times)
    assert mean["value"] == pytest.approx(2.0) and limits(mean) == {"floor": 2.3, "goal": 3.0}
    assert [row["value"] for row in rows] == pytest.approx([1, 4, 4, 2, 2, 1])
    assert (rows[2]["low"], rows[2]["high"], rows[2]["rounds"]) == pytest.approx((4, 5, 3))
    assert limits(rows_of("W8A16", 16, times)[-1]) == {}


def test_packed_decoding_is_judged_by_its_speed(load: Any) -> None:
    times = {"floats": [3.0, 3.0], "int8": [2.0, 2.0], "int4": [1.0, 1.0]}
    rows_of = load("decode_packed")["rows_of"]
    *speeds, int8, int4 = rows_of(times, num_tokens=6, on_gpu=True)
    assert [row["value"] for row in speeds] == [2.0, 3.0, 6.0]
    assert (int8["value"], limits(int8)) == (1.5, {"floor": 1.5, "goal": 1.65})
    assert (int4["value"], limits(int4)) == (3.0, {"floor": 2.0, "goal": 2.45})
    assert limits(rows_of(times, num_tokens=6, on_gpu=False)[-1]) == {}


def test_an_int8_cache_is_judged_by_its_time(load: Any) -> None:
    """Less is better: the limit is a ceiling."""
    times = {name: [1.0] for name in ("minillm", "read", "copy")} | {"minillm int8": [0.6]}
    *_, row = load("paged_attention")["rows_of"](times, [], 1e9, 1, 32_768)
    assert row["name"].endswith("time in int8 / bfloat16") and row["value"] == pytest.approx(0.6)
    assert limits(row) == {"ceiling": 0.62, "goal": 0.54}
