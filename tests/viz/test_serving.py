"""Chapter 13's pictures: every number that goes in is where it should be, and the limits decide what is good."""

import pytest
from matplotlib.colors import to_hex

from minillm.viz import serving as pictures
from minillm.viz.style import ACCEPTED, REJECTED, WASTE

POINTS = [
    pictures.Point(0.4, [0.01, 0.02, 0.02, 0.03], [0.005] * 4, [0.004, 0.005, 0.006]),
    pictures.Point(1.4, [0.1, 0.4, 0.5, 0.9], [0.005, 0.009, 0.02, 0.02], [0.005, 0.02, 0.02]),
]
SAMPLES = [
    (0.0, {"num_requests_running": 0, "num_requests_waiting": 0, "kv_cache_usage_perc": 0.0}),
    (0.5, {"num_requests_running": 8, "num_requests_waiting": 12, "kv_cache_usage_perc": 0.25}),
]
RUNS = {
    "no limit": pictures.Arrivals([(0, 0.01), (0.5, 0.4), (1, 0.9)]),
    "at most 8 wait": pictures.Arrivals([(0, 0.01), (0.5, 0.2)], [0.7, 1.0]),
}

PICTURES = {
    "users": lambda: pictures.users_figure(
        {"one by one": [[0.5], [1.0]], "server": [[0.1, 0.2], [0.1, 0.3]]}
    ),
    "held": lambda: pictures.held_figure(["", " a", "", " a", " a la", " a large", ""], " a large sp"),
    "held, a line break": lambda: pictures.held_figure(["", "\n", "\n\n", ""], "\n\nUser"),
    "slow reader": lambda: pictures.slow_reader_figure(
        [(0.1, 5), (0.2, 10)], [(0.1, 2), (0.9, 10)], [(0.1, 5), (0.3, 10)]
    ),
    "load": lambda: pictures.load_figure(POINTS),
    "goodput": lambda: pictures.goodput_figure(POINTS, 40, 10),
    "admission": lambda: pictures.admission_figure(RUNS),
    "metrics": lambda: pictures.metrics_figure(SAMPLES),
    "routing": lambda: pictures.routing_figure({"least loaded": (0.5, 0.038), "prefix-aware": (0.72, 0.023)}),
}


def rule(x: float) -> dict[str, list[tuple[float, float]]]:
    return {"_child2": [(x, 0), (x, 1)]}


def lines(axes) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}


def test_a_user_waits_until_the_first_piece() -> None:
    one, server = PICTURES["users"]().axes
    assert [bar.get_width() for bar in one.patches] == [0.5, 1.0]
    assert [bar.get_width() for bar in server.patches] == [0.1, 0.1]
    assert [list(line.get_xdata()) for line in server.lines] == [[0.1, 0.2], [0.1, 0.3]]


def test_bars_are_the_text_that_waits() -> None:
    [axes] = PICTURES["held"]().axes
    assert [bar.get_height() for bar in axes.patches] == [0, 2, 0, 2, 5, 8, 0]
    assert {to_hex(bar.get_facecolor()) for bar in axes.patches} == {REJECTED.lower()}
    assert [text.get_text() for text in axes.texts] == ["' a'", "' a large'"]


def test_a_slow_reader_is_a_line_of_steps() -> None:
    [axes] = PICTURES["slow reader"]().axes
    assert lines(axes)["with a queue"] == [(0, 0), (0.1, 2), (0.9, 10), (0.9, 10)]
    assert lines(axes)["with a mailbox"][-1] == (0.9, 10)


@pytest.mark.parametrize(("part", "value"), [(0.5, 2), (0.99, 4), (0.25, 1), (0.26, 2), (1.0, 4)])
def test_a_share_is_the_nearest_rank(part: float, value: float) -> None:
    assert pictures.share([4, 1, 3, 2], part) == value


def test_latencies_are_in_milliseconds() -> None:
    left, right = PICTURES["load"]().axes
    assert lines(left) == {"median": [(0.4, 20), (1.4, 400)], "99 %": [(0.4, 30), (1.4, 900)], **rule(1)}
    assert lines(right)["median"] == [(0.4, 5), (1.4, 20)]


def test_good_requests_are_within_both_limits() -> None:
    [axes] = pictures.goodput_figure(POINTS, ttft_ms=500, tpot_ms=10).axes
    assert [bar.get_height() for bar in axes.patches] == [1, 0.5]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == [ACCEPTED.lower(), WASTE.lower()]
    explorer = pictures.goodput_explorer(POINTS)
    assert explorer.values == {"ttft_limit_ms": 40, "tpot_limit_ms": 10}
    explorer.set(ttft_limit_ms=900)
    assert explorer.num_draws == 2


def test_refused_requests_are_crosses_at_zero() -> None:
    free, bounded = PICTURES["admission"]().axes
    assert list(lines(free)) == ["answered"]
    assert lines(bounded)["429"] == [(0.7, 0), (1.0, 0)]


def test_metrics_are_lines_over_time() -> None:
    requests, cache = PICTURES["metrics"]().axes
    assert lines(requests) == {"running": [(0, 0), (0.5, 8)], "waiting": [(0, 0), (0.5, 12)]}
    assert list(lines(cache).values()) == [[(0, 0), (0.5, 25)]]


def test_bars_of_policies() -> None:
    hits, ttft = PICTURES["routing"]().axes
    assert [bar.get_width() for bar in hits.patches] == [0.5, 0.72]
    assert [text.get_text().strip() for text in ttft.texts] == ["38 ms", "23 ms"]
