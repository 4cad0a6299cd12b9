"""The roofline of chapter 00: limits at the machine's figures, steps at what they reached, doubts in words."""

from dataclasses import replace

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

from minillm.measure.costs import decode_cost, prefill_cost
from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.known_models import KNOWN_MODELS
from minillm.measure.roofline import ridge, time_at
from minillm.measure.trace import Phases, ScheduledRequest, StepRecord, Trace
from minillm.viz.memory_wall import Dot
from minillm.viz.style import DECODE, PREFILL, REJECTED, Picture
from minillm.viz.your_machine import bounds_of, dots_of, machine_figure
from tests.viz.readable import faults

A100, LLAMA = KNOWN_GPUS["A100"], KNOWN_MODELS["llama_3_8b"]
READ = A100.read_bandwidth
STEADY = replace(
    A100, spread={"read": (0.9 * READ, 1.1 * READ), "bfloat16": (300e12, 320e12), "int8": (1, 9)}
)
COST = decode_cost(LLAMA, 1000)
BOUND = time_at(COST, A100, "bfloat16").seconds


def step(number: int, kind: str, requests: int, forward: float) -> StepRecord:
    computed, tokens = (0, 10) if kind == "prefill" else (10, 1)
    parts = [ScheduledRequest(str(i), kind, computed, tokens) for i in range(requests)]
    return StepRecord(number, 0.0, forward, parts, 0, requests, Phases(0.0, forward, 0.0, 0.0))


def words(picture: Picture) -> str:
    return "\n".join(text.get_text() for text in picture.axes[0].texts)


def test_the_limits_meet_at_the_ridge() -> None:
    limit = machine_figure(A100, "bfloat16", []).axes[0].lines[0]
    low, corner, _ = limit.get_xdata()
    floor, peak, flat = limit.get_ydata()
    assert corner == ridge(A100, "bfloat16") and floor == low * READ
    assert peak == flat == A100.rate("bfloat16")


def test_a_step_is_at_what_it_reached_and_says_how_far_that_is_from_its_bound() -> None:
    picture = machine_figure(A100, "bfloat16", [Dot("decode", COST, DECODE, 3 * BOUND)])
    distance = picture.axes[0].lines[1]
    assert list(distance.get_xdata()) == [COST.intensity] * 2
    assert list(distance.get_ydata()) == pytest.approx([COST.flops / 3 / BOUND, COST.flops / BOUND])
    assert "3.0 × the bound" in words(picture)


@pytest.mark.parametrize("factor", [0.02, 0.5, 1.0, 300.0])
def test_every_step_is_in_the_picture_and_one_above_the_roof_is_called_impossible(factor: float) -> None:
    cost = prefill_cost(LLAMA, 2000)
    dot = Dot("prefill", cost, PREFILL, factor * time_at(cost, A100, "bfloat16").seconds)
    picture = machine_figure(A100, "bfloat16", [dot])
    low, high = picture.axes[0].get_ylim()
    assert low < dot.achieved(A100, "bfloat16") < high
    assert ("A dot is above the roof" in words(picture)) == (factor < 0.9)
    assert faults(picture) == []


@pytest.mark.parametrize(
    ("spread", "said"),
    [
        ({"read": (1e12, 1.6e12)}, "Doubtful: read scattered by a factor of 1.6."),
        ({"bfloat16": (1e14, 3e14)}, "Doubtful: bfloat16 scattered by a factor of 3.0."),
    ],
)
def test_a_doubtful_limit_is_dashed_and_named(spread: dict, said: str) -> None:
    picture = machine_figure(replace(STEADY, spread=STEADY.spread | spread), "bfloat16", [])
    assert picture.axes[0].lines[0].get_linestyle() == "--"
    (text,) = [text for text in picture.axes[0].texts if said in text.get_text()]
    assert text.get_color() == REJECTED and "this_machine(refresh=True)" in text.get_text()
    assert faults(picture) == []


def test_a_doubt_about_another_dtype_is_not_shown() -> None:
    assert STEADY.doubtful == ["int8"]
    picture = machine_figure(STEADY, "bfloat16", [])
    assert "oubtful" not in words(picture) and picture.axes[0].lines[0].get_linestyle() == "-"


def test_the_dots_are_the_median_of_the_fullest_decode_steps_and_the_largest_prefill() -> None:
    one, many = Trace(), Trace()
    one += [step(0, "prefill", 1, 0.5), *(step(i, "decode", 1, t) for i, t in enumerate((0.1, 0.3, 0.2)))]
    many += [step(0, "prefill", 4, 0.6), step(1, "prefill", 2, 0.4), step(2, "decode", 2, 0.05)]
    many += [step(i, "decode", 4, t) for i, t in enumerate((0.5, 0.4, 0.9))]
    dots = dots_of({"decode, 1": one, "decode, 4": many}, LLAMA, 2)
    assert [(dot.name, dot.seconds) for dot in dots] == [
        ("decode, 1", 0.2),
        ("decode, 4", 0.5),
        ("prefill", 0.6),
    ]
    assert dots[1].cost == decode_cost(LLAMA, 10, 4) and dots[2].cost == prefill_cost(LLAMA, 10, batch=4)


def test_the_numbers_of_the_picture_are_also_a_line() -> None:
    (line,) = bounds_of([Dot("decode", COST, DECODE, 2 * BOUND)], A100, "bfloat16")
    assert line == (
        f"decode: {COST.intensity:.1f} operations per byte, {2e3 * BOUND:.2f} ms. "
        f"Reading the bytes takes at least {1e3 * BOUND:.2f} ms, 2.0 times less."
    )
