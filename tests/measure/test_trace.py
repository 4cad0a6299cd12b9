"""Records survive a file, and latencies follow from them."""

import subprocess
import sys
from pathlib import Path

import pytest

import minillm
from minillm.measure.trace import (
    BlockCounts,
    Phases,
    RequestAdded,
    RequestFinished,
    ScheduledRequest,
    StepRecord,
    TokenRecord,
    Trace,
    inter_token_latencies,
    ttft,
)


@pytest.fixture
def trace() -> Trace:
    """Two requests: "a" is prefilled and decodes, "b" comes later and pushes "a" out."""
    trace = Trace()
    first = StepRecord(
        step=0,
        start=1.0,
        end=1.5,
        scheduled=[
            ScheduledRequest("a", "prefill", num_computed_tokens=16, num_tokens=4, num_cached_tokens=16)
        ],
        num_waiting=0,
        num_running=1,
        phases=Phases(schedule=0.1, forward=0.3, sample=0.05, commit=0.05),
        blocks=BlockCounts(total=8, free=6, cached=1),
    )
    second = StepRecord(
        step=1,
        start=2.0,
        end=2.5,
        scheduled=[ScheduledRequest("a", "decode", 20, 1), ScheduledRequest("b", "prefill", 0, 7)],
        num_waiting=0,
        num_running=2,
        phases=Phases(0.1, 0.2, 0.1, 0.1),
    )
    third = StepRecord(
        2, 3.0, 3.5, [ScheduledRequest("b", "decode", 7, 1)], 1, 1, Phases(0, 0, 0, 0), None, ["a"]
    )
    trace += [
        RequestAdded(0.5, "a", 20),
        first,
        TokenRecord(1.5, "a", 0, 42),
        RequestAdded(1.75, "b", 7),
        second,
    ]
    trace += [TokenRecord(2.5, "a", 1, 43), TokenRecord(2.5, "b", 0, 9), third, TokenRecord(3.5, "b", 1, 8)]
    trace += [TokenRecord(3.5, "b", 2, 7), RequestFinished(3.5, "b", "length"), RequestAdded(3.6, "c", 3)]
    return trace


def test_a_saved_trace_loads_equal(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "trace.jsonl")
    loaded = Trace.load(tmp_path / "trace.jsonl")
    assert loaded == trace
    assert [type(record) for record in loaded] == [type(record) for record in trace]
    assert len((tmp_path / "trace.jsonl").read_text().splitlines()) == len(trace)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"kind": "Step"}',
        '{"time": 1}',
        "[]",
        '{"kind": "TokenRecord", "time": 1}',
        '{"kind": "StepRecord", "scheduled": 3, "phases": {}, "blocks": null}',
    ],
)
def test_a_line_that_is_no_record_is_named(line: str, trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    trace.save(path)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=rf"trace\.jsonl, line {len(trace) + 1}:"):
        Trace.load(path)


def test_records_of_one_kind_and_of_one_request(trace: Trace) -> None:
    assert [record.step for record in trace.of(StepRecord)] == [0, 1, 2]
    of_a = trace.for_request("a")
    # Its arrival, both steps that computed it, two tokens, and the step that preempted it.
    assert [type(record).__name__ for record in of_a] == [
        "RequestAdded",
        "StepRecord",
        "TokenRecord",
        "StepRecord",
        "TokenRecord",
        "StepRecord",
    ]
    assert trace.for_request("nobody") == []


def test_tokens_of_a_step_by_kind(trace: Trace) -> None:
    mixed = trace.of(StepRecord)[1]
    assert (mixed.num_tokens(), mixed.num_tokens("prefill"), mixed.num_tokens("decode")) == (8, 7, 1)


def test_time_to_first_token_counts_from_arrival_and_omits_who_has_none(trace: Trace) -> None:
    assert ttft(trace) == {"a": 1.0, "b": 0.75}


def test_inter_token_latencies(trace: Trace) -> None:
    # The last two of "b" came out of one step, as an accepted draft does.
    assert inter_token_latencies(trace) == {"a": [1.0], "b": [1.0, 0.0]}


def test_the_clock_starts_at_zero_and_runs_forward() -> None:
    trace = Trace()
    first, second = trace.now(), trace.now()
    assert 0 <= first <= second < 60


def test_a_record_has_no_dict_and_no_other_fields() -> None:
    record = TokenRecord(0.0, "a", 0, 1)
    with pytest.raises(AttributeError):
        record.text = "x"


def test_what_is_counted_needs_no_torch() -> None:
    modules = ("trace", "costs", "roofline", "machine", "known_gpus", "known_models")
    # An empty package stands in for minillm, whose front door does import torch.
    code = f"""
import importlib, sys, types
sys.modules["minillm"] = package = types.ModuleType("minillm")
package.__path__ = {list(minillm.__path__)}
for module in {modules}:
    importlib.import_module(f"minillm.measure.{{module}}")
    if "torch" in sys.modules:
        sys.exit(module)
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
