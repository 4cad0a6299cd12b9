from collections.abc import Sequence
from typing import Literal

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from minillm.measure.trace import (
    BlockCounts,
    Phases,
    RequestAdded,
    RequestFinished,
    ScheduledRequest,
    StepRecord,
    TokenRecord,
    Trace,
)
from minillm.viz import continuous_batching as pictures
from minillm.viz.style import DECODE, PREFILL, WASTE

Part = tuple[str, Literal["prefill", "decode", "padding"], int, int]  # request, kind, computed, tokens


def trace(
    steps: Sequence[Sequence[Part]],
    seconds: Sequence[float] = (),
    preempted: dict[int, list[str]] | None = None,
    finished: dict[int, list[str]] | None = None,
    blocks: Sequence[int] = (),
) -> Trace:
    """A run of these steps. `finished` and `preempted` by number of the step, from 0; `blocks` are free ones of 10."""
    made, now = Trace(), 5.0  # a trace need not begin at 0
    for name in dict.fromkeys(part[0] for parts in steps for part in parts):
        made.append(RequestAdded(now, name, 3))
    for i, parts in enumerate(steps):
        end = now + (seconds[i] if seconds else 1e-3)
        for name in (finished or {}).get(i, []):
            made.append(RequestFinished(end, name, "length"))
        scheduled = [ScheduledRequest(*part) for part in parts]
        free = BlockCounts(10, blocks[i]) if blocks else None
        waiting, running = len(steps) - i, len(parts)
        record = StepRecord(i, now, end, scheduled, waiting, running, Phases(0, 0, 0, 0), free)
        record.preempted = (preempted or {}).get(i, [])
        made.append(record)
        now = end
    return made


STATIC = trace(
    [
        [("a", "prefill", 0, 3), ("b", "prefill", 0, 4)],
        [("a", "decode", 3, 1), ("b", "padding", 3, 1)],
        [("a", "decode", 4, 1), ("b", "padding", 3, 1)],
        [("c", "prefill", 0, 2)],
    ],
    seconds=[0.030, 0.010, 0.010, 0.020],
    finished={0: ["b"], 2: ["a"], 3: ["c"]},
)
CONTINUOUS = trace(
    [
        [("a", "prefill", 0, 3), ("b", "prefill", 0, 4)],
        [("a", "decode", 3, 1), ("c", "prefill", 0, 2)],
        [("a", "decode", 4, 1)],
    ],
    seconds=[0.030, 0.020, 0.010],
    finished={0: ["b"], 1: ["c"], 2: ["a"]},
)
PREEMPTED = trace(
    [
        [("a", "prefill", 0, 4), ("b", "prefill", 0, 3)],
        [("a", "decode", 4, 1), ("b", "decode", 3, 1)],
        [("a", "decode", 5, 1)],
        [("b", "prefill", 0, 4)],
        [("b", "decode", 4, 1)],
    ],
    preempted={2: ["b"]},
    finished={2: ["a"], 4: ["b"]},
    blocks=[6, 2, 0, 7, 6],
)


def bars(axes: Axes) -> dict[tuple[int, str], list[tuple[float, float]]]:
    """(row, colour) -> the spans drawn there, from left to right."""
    found = {}
    for collection in axes.collections:
        if not len(collection.get_facecolor()):  # the ticks of tokens are lines
            continue
        paths = [path.get_extents() for path in collection.get_paths()]
        if all(box.height > 0.5 for box in paths):
            color = to_hex(collection.get_facecolor()[0]).upper()
            found[round((paths[0].y0 + paths[0].y1) / 2), color] = [(b.x0, b.x1) for b in paths]
    return found


def test_a_bar_is_a_step_in_its_kinds_colour() -> None:
    static, continuous = pictures.gantt_figure({"s": STATIC, "c": CONTINUOUS}, 4).axes
    assert bars(static) == {
        (0, PREFILL): [(0, 1)],
        (0, DECODE): [(1, 2), (2, 3)],
        (1, PREFILL): [(0, 1)],
        (1, WASTE): [(1, 2), (2, 3)],
        (2, PREFILL): [(3, 4)],
    }
    assert bars(continuous) == {
        (0, PREFILL): [(0, 1)],
        (0, DECODE): [(1, 2), (2, 3)],
        (1, PREFILL): [(0, 1)],
        (2, PREFILL): [(1, 2)],
    }
    assert static.get_xlim() == continuous.get_xlim() == (0, 4)


def test_in_milliseconds_all_panels_have_one_time_and_the_cursor_is_the_same_moment() -> None:
    static, continuous = pictures.gantt_figure({"s": STATIC, "c": CONTINUOUS}, 3, milliseconds=True).axes
    assert static.get_xlim() == continuous.get_xlim() == (0, pytest.approx(70))
    cursors = [axes.lines[-1].get_xdata()[0] for axes in (static, continuous)]
    assert cursors == [pytest.approx(50)] * 2  # the third step of the run of most steps ends there
    assert "after 3 steps" in static.get_title(loc="left")
    assert bars(static)[0, DECODE] == [
        (pytest.approx(30), pytest.approx(40)),
        (pytest.approx(40), pytest.approx(50)),
    ]
    assert bars(continuous)[2, PREFILL] == [(pytest.approx(30), pytest.approx(50))]
    assert (0, DECODE) in bars(continuous) and len(bars(continuous)[0, DECODE]) == 1, (
        "the third ends at 60 ms"
    )


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (1, "s: 1 of 3 done after 1 step"),
        (2, "s: 1 of 3 done after 2 steps, 11% of the work was padding"),
        (3, "s: 2 of 3 done after 3 steps, 18% of the work was padding"),
        (9, "s: 3 of 3 done after 4 steps, 15% of the work was padding"),
    ],
)
def test_the_title_counts_up_to_the_step(step: int, says: str) -> None:
    assert pictures.gantt_figure({"s": STATIC}, step).axes[0].get_title(loc="left") == says


def test_a_preemption_is_a_cross_and_its_work_is_counted() -> None:
    axes = pictures.gantt_figure({"p": PREEMPTED}, 5).axes[0]
    crosses = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "x"]
    assert crosses == [(2, 1)]
    assert axes.get_title(loc="left").endswith("1 preemption, 4 tokens computed again")
    assert "preempted" in [text.get_text() for text in axes.figure.legends[0].get_texts()]
    calm = pictures.gantt_figure({"s": STATIC}, 4)
    assert "preempted" not in [text.get_text() for text in calm.legends[0].get_texts()]


def test_tokens_are_counted_by_kind_and_what_was_computed_twice() -> None:
    assert pictures.tokens_computed(STATIC) == {"prefill": 9, "decode": 2, "padding": 2, "again": 0}
    assert pictures.tokens_computed(PREEMPTED) == {"prefill": 11, "decode": 4, "padding": 0, "again": 4}


def test_a_second_chunk_after_a_preemption_is_counted_too() -> None:
    chunks = trace(
        [[("a", "prefill", 0, 4)], [("a", "decode", 4, 1)], [("a", "prefill", 0, 3)], [("a", "decode", 3, 3)]]
    )
    assert pictures.tokens_computed(chunks)["again"] == 5


def test_the_steps_stack_to_their_tokens_and_the_numbers_are_those_of_the_step() -> None:
    top, middle, bottom = pictures.step_figure(PREEMPTED, 8, 2).axes
    heights = [bar.get_height() + bar.get_y() for bar in top.containers[-1]]
    assert heights == [7, 2, 1, 4, 1]
    assert top.get_title(loc="left") == "Step 2: 2 tokens"
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["prefill: 0", "decode: 2"]
    assert top.lines[0].get_ydata()[0] == 8
    assert [text.get_text() for text in middle.get_legend().get_texts()] == ["waiting: 4", "running: 2"]
    assert [list(line.get_ydata()) for line in middle.lines[:2]] == [[5, 4, 3, 2, 1], [2, 2, 1, 1, 1]]
    assert [text.get_text() for text in bottom.texts] == ["in use: 8 of 10 blocks"]


def test_three_kinds_stack_one_on_the_other() -> None:
    mixed = trace([[("a", "prefill", 0, 5), ("b", "decode", 9, 2), ("c", "padding", 9, 1)]], blocks=[4])
    bars_of_kinds = [bars[0] for bars in pictures.step_figure(mixed, 8, 1).axes[0].containers]
    assert [(bar.get_y(), bar.get_height()) for bar in bars_of_kinds] == [(0, 5), (5, 2), (7, 1)]


def test_a_cache_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="the cache of this run has none"):
        pictures.step_figure(STATIC, 8, 1)


def test_a_moved_slider_draws_anew() -> None:
    explorer = pictures.gantt_explorer({"s": STATIC, "c": CONTINUOUS}, 2)
    first = explorer.png
    explorer.set(step=4)
    second = explorer.png
    explorer.set(milliseconds=True)
    assert len({first, second, explorer.png}) == 3


def test_waits_goodput_and_the_promise_stand_over_the_load() -> None:
    figure = pictures.knee_figure({0.5: [0, 0, 8, 0], 1.0: [0, 9, 8.5, 30]}, {0.5: 0.5, 1.0: 0.25}, limit=8)
    wait, good = figure.axes
    assert [list(line.get_ydata()) for line in good.lines] == [[50, 100], [50, 25]]
    assert wait.lines[2].get_ydata()[0] == 8 and "8 steps" in wait.lines[2].get_label()
    assert list(wait.lines[1].get_ydata()) == [0, 8.75], "medians"


def test_the_bars_are_the_seconds_and_the_ratios_are_to_the_fastest() -> None:
    left, right = pictures.comparison_figure([1, 9, 9, 21], {"fast": (2.0, 10), "slow": (5.0, 40)}).axes
    assert [bar.get_height() for bar in left.patches] == [1, 2, 1]
    assert left.get_title(loc="left") == "4 outputs, mean 10, median 9"
    assert [bar.get_width() for bar in right.patches] == [2.0, 5.0]
    assert [text.get_text().strip() for text in right.texts] == [
        "2.00 s, ×1.0, 10 steps",
        "5.00 s, ×2.5, 40 steps",
    ]


def test_a_tick_for_each_token_and_the_longest_wait_of_those_that_decode_is_shaded() -> None:
    run = Trace()
    run += [RequestAdded(1.0, "a", 3), TokenRecord(1.010, "a", 0, 5), RequestAdded(1.020, "long", 99)]
    run += [TokenRecord(1.015, "a", 1, 5), TokenRecord(1.115, "a", 2, 5), TokenRecord(1.120, "long", 0, 5)]
    run += [TokenRecord(1.820, "long", 1, 5), TokenRecord(1.820, "a", 3, 5)]  # a hiccup, but later
    chunks = [("long", "prefill", 0, 60)], [("a", "decode", 3, 1), ("long", "prefill", 60, 39)]
    for number, parts in enumerate(chunks):
        start, times = 1.03 + 0.05 * number, Phases(0, 0, 0, 0)
        scheduled = [ScheduledRequest(*part) for part in parts]
        run.append(StepRecord(number, start, start + 0.04, scheduled, 0, 2, times))
    axes = pictures.latency_figure({"whole": run}, ["long"]).axes[0]
    assert axes.get_title(loc="left") == "whole: longest wait 100 ms, TTFT of the long prompt 100 ms"
    ticks = [c for c in axes.collections if hasattr(c, "get_positions")]
    assert [c.get_positions() for c in ticks] == [
        pytest.approx([10, 15, 115, 820]),
        pytest.approx([120, 820]),
    ]
    assert [c.get_lineoffset() for c in ticks] == [0, 1]
    assert bars(axes)[1, PREFILL] == [pytest.approx((30, 70)), pytest.approx((80, 120))]
    (hole,) = axes.patches
    assert (hole.get_x(), hole.get_width()) == pytest.approx((15, 100))
    assert (hole.get_y(), hole.get_height()) == (-0.5, 1), "over the rows of those that decode"
    (arrival,) = axes.lines
    assert (arrival.get_xdata()[0], arrival.get_ydata()[0]) == (pytest.approx(20), 1)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["request a", "long prompt"]


def test_a_long_prompt_that_stalls_no_request_is_refused() -> None:
    run = Trace()
    run += [RequestAdded(1.0, "a", 3), RequestAdded(1.0, "long", 9), TokenRecord(1.1, "long", 0, 5)]
    with pytest.raises(ValueError, match="No request decodes while request 'long' waits"):
        pictures.latency_figure({"whole": run}, ["long"])
