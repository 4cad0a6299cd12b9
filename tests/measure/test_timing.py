"""Order, counts and arithmetic of the timing helpers; how long anything takes is not tested."""

import json
import statistics

import pytest
import torch

from minillm.measure import timing
from minillm.measure.timing import (
    Spread,
    interleaved,
    machine_record,
    median_of,
    ratio_of,
    spread_of,
    times_of,
)


def test_times_are_those_of_the_counted_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    durations = iter([100.0, 50.0, 3.0, 1.0, 2.0])

    def work() -> None:
        clock[0] += next(durations)

    assert times_of(work, rounds=3, warmup=2) == [3.0, 1.0, 2.0]


def test_median_of_gives_the_median_and_the_extremes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "times_of", lambda fn, **options: [5.0, 1.0, 2.0])
    assert median_of(lambda: None) == Spread(2.0, 1.0, 5.0)


def test_sides_are_measured_by_turns_and_the_order_turns_about() -> None:
    calls: list[str] = []
    times = interleaved({name: lambda name=name: calls.append(name) for name in "ABC"}, rounds=3, warmup=1)
    assert "".join(calls) == "ABC" + "ABC" + "CBA" + "ABC"
    assert {name: len(seconds) for name, seconds in times.items()} == {"A": 3, "B": 3, "C": 3}
    assert all(seconds >= 0 for side in times.values() for seconds in side)


def test_a_ratio_lies_between_those_of_its_rounds() -> None:
    assert ratio_of([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == Spread(4.0, 2.0, 4.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        a, b = (torch.rand(2, 5, generator=generator) + 0.01).tolist()
        ratio = ratio_of(a, b)
        assert ratio.low <= ratio.median <= ratio.high
        assert ratio.median == statistics.median(a) / statistics.median(b)


def test_sides_of_different_length_have_no_ratio() -> None:
    with pytest.raises(ValueError):
        ratio_of([1.0, 2.0], [1.0])


def test_spread_of() -> None:
    assert spread_of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)


def test_the_record_of_a_machine_is_json_and_names_it() -> None:
    record = machine_record()
    assert json.loads(json.dumps(record)) == record
    assert record["torch"] == torch.__version__
    assert f"{torch.get_num_threads()} thread" in str(record["machine"])
    assert not str(record["machine"]).startswith(",")
