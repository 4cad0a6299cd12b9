"""A figure that scatters is measured again: with clocks that a test moves by hand."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch

from minillm.measure import probe, timing
from minillm.measure.known_gpus import KNOWN_GPUS

CPU = torch.device("cpu")
STEADY = [1.0, 1.25, 1.5]
SCATTERED = [1.0, 1.25, 1.75]
WORST = [1.0, 1.25, 5.0]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterable[list[float]]], Callable[[], None]]:
    """Make a function that takes the seconds of the attempts, each of three rounds, on a clock of its own."""
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def make(attempts: Iterable[list[float]]) -> Callable[[], None]:
        # Each attempt warms up and looks once how long a call takes, and warms up for its three rounds.
        durations = iter([seconds for rounds in attempts for seconds in (9.0, 1.0, 9.0, *rounds)])

        def call() -> None:
            clock[0] += next(durations)

        return call

    return make


def test_a_steady_figure_is_measured_once(work: Callable) -> None:
    figure = probe._rate(12.0, work([STEADY]), CPU)  # a second attempt would have no more seconds
    assert (figure.median, figure.low, figure.high) == (9.6, 8.0, 12.0)


def test_a_figure_that_scatters_is_measured_again(work: Callable) -> None:
    assert probe._rate(12.0, work([SCATTERED, STEADY]), CPU).low == 8.0


def test_after_three_attempts_the_steadiest_one_is_kept(work: Callable) -> None:
    figure = probe._rate(12.0, work([WORST, SCATTERED, WORST]), CPU)
    assert (figure.low, figure.high) == (12 / 1.75, 12.0)
    machine = replace(KNOWN_GPUS["A100"], spread={"read": (figure.low, figure.high), "copy": (10.0, 12.0)})
    assert machine.doubtful == ["read"]


def test_a_scatter_of_exactly_one_and_a_half_is_believed(work: Callable) -> None:
    figure = probe._rate(12.0, work([[1.0, 1.0, 1.5]]), CPU)
    assert figure.high == 1.5 * figure.low
    assert replace(KNOWN_GPUS["A100"], spread={"read": (figure.low, figure.high)}).doubtful == []


def test_a_data_sheet_is_not_doubtful() -> None:
    assert all(gpu.doubtful == [] for gpu in KNOWN_GPUS.values())


def test_the_machine_names_the_figures_that_scatter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some calls take five times as long as others, whatever is measured."""
    clock, calls = [0.0], [0]

    def seconds() -> float:
        calls[0] += 1
        clock[0] += (1.0, 1.0, 5.0)[calls[0] % 3]
        return clock[0]

    monkeypatch.setattr(timing.time, "perf_counter", seconds)
    monkeypatch.setattr(probe, "_BUFFER_BYTES", 2**12)
    monkeypatch.setattr(probe, "MATMUL_DTYPES", (torch.float32,))
    assert probe.measure_machine("cpu").doubtful == ["read", "copy", "float32"]
