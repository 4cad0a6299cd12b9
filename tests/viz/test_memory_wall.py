"""Chapter 2's pictures show their numbers: dots where the costs put them, bars as long as shares, text that agrees."""

import re
from dataclasses import replace

import pytest
from matplotlib.colors import to_hex

from minillm.measure.costs import decode_cost, prefill_cost
from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.known_models import KNOWN_MODELS
from minillm.measure.roofline import ridge, time_at
from minillm.measure.trace import Phases, ScheduledRequest, StepRecord, Trace
from minillm.viz import memory_wall
from minillm.viz.memory_wall import Dot, Timing
from minillm.viz.style import DECODE, KV, PREFILL, REJECTED, Picture

A100, H100 = KNOWN_GPUS["A100"], KNOWN_GPUS["H100"]
LLAMA = KNOWN_MODELS["llama_3_8b"]
MEASURED = Dot("measured", decode_cost(LLAMA, 1000), DECODE, seconds=1.0)


def words(picture: Picture) -> str:
    return "\n".join(text.get_text() for axes in picture.axes for text in axes.texts)


def places(picture: Picture) -> list[tuple[float, float]]:
    offsets = [dots.get_offsets()[0] for dots in picture.axes[0].collections]
    return [(float(x), float(y)) for x, y in offsets]


def test_the_roof_has_its_corner_at_the_ridge() -> None:
    roof = memory_wall.run_of(A100, "bfloat16", [MEASURED], 0).axes[0].lines[0]
    low, corner, _ = roof.get_xdata()
    assert corner == ridge(A100, "bfloat16")
    floor, peak, flat = roof.get_ydata()
    assert floor == low * A100.read_bandwidth
    assert peak == flat == A100.rate("bfloat16")


def test_a_bound_lies_on_the_roof_and_a_measured_step_where_it_came() -> None:
    cost = decode_cost(LLAMA, 1000)
    bound = time_at(cost, A100, "bfloat16").seconds
    dots = [Dot("bound", cost, DECODE), Dot("measured", cost, DECODE, seconds=3 * bound)]
    on_roof, below, _ = places(memory_wall.run_of(A100, "bfloat16", dots, 1))
    assert on_roof == pytest.approx((cost.intensity, cost.intensity * A100.read_bandwidth))
    assert below[1] == pytest.approx(on_roof[1] / 3)


@pytest.mark.parametrize("factor", [0.02, 0.5, 1.0, 300.0])
def test_every_dot_is_in_the_picture_and_one_above_the_roof_is_called_impossible(factor: float) -> None:
    cost = prefill_cost(LLAMA, 2000)
    dot = Dot("step 0: prompts", cost, PREFILL, seconds=factor * time_at(cost, A100, "bfloat16").seconds)
    picture = memory_wall.run_of(A100, "bfloat16", [dot], 0)
    low, high = picture.axes[0].get_ylim()
    assert all(low < y < high for _, y in places(picture))
    assert ("the machine was busy" in words(picture)) == (factor < 0.9)


def test_a_machine_that_scattered_is_called_doubtful() -> None:
    spread = {"read": (1.0, 1.6), "bfloat16": (1.0, 1.4), "int8": (1.0, 9.0)}
    said = words(memory_wall.run_of(replace(A100, spread=spread), "bfloat16", [MEASURED], 0))
    assert "Doubtful: read scattered by a factor of 1.6." in said and "this_machine(refresh=True)" in said
    assert "bfloat16 scattered" not in said and "int8" not in said
    assert "oubtful" not in words(memory_wall.run_of(A100, "bfloat16", [MEASURED], 0))


def step_record(parts: list[ScheduledRequest], forward: float) -> StepRecord:
    return StepRecord(0, 0.0, forward, parts, 0, len(parts), Phases(0.0, forward, 0.0, 0.0))


def test_the_steps_of_a_run_have_their_costs_and_times() -> None:
    trace = Trace()
    trace.append(step_record([ScheduledRequest("0", "prefill", 0, 10)], 0.5))
    trace.append(step_record([ScheduledRequest(r, "decode", 10, 1) for r in "01"], 0.25))
    first, second = memory_wall.steps_of(trace, LLAMA, 2)
    assert (first.cost, first.color, first.seconds) == (prefill_cost(LLAMA, 10), PREFILL, 0.5)
    assert (second.cost, second.color, second.seconds) == (decode_cost(LLAMA, 10, 2), DECODE, 0.25)
    picture = memory_wall.run_of(A100, "bfloat16", [first, second], 1)
    assert "2 requests" in picture.axes[0].get_title(loc="left") and "250 ms" in picture.axes[0].get_title(
        loc="left"
    )
    assert len(places(picture)) == 3  # every step faintly, and this one


def test_the_forecast_says_what_the_roofline_says() -> None:
    picture = memory_wall.forecast_of(LLAMA, H100, weights="bfloat16", batch=8, context=1024, model="m")
    prefill, decode = prefill_cost(LLAMA, 1024), decode_cost(LLAMA, 1023, 8)
    assert [x for x, _ in places(picture)] == pytest.approx([prefill.intensity, decode.intensity])
    text = words(picture)
    assert "bound by compute" in text and "bound by memory" in text
    assert f"{8 / time_at(decode, H100, 'bfloat16').seconds:,.0f} tokens/s" in text
    weights, kv = picture.axes[1].patches
    assert kv.get_width() == pytest.approx(1 - decode.weight_bytes / decode.bytes)
    assert weights.get_width() + kv.get_width() == pytest.approx(1)
    assert to_hex(kv.get_facecolor()).upper() == KV


@pytest.mark.parametrize(("weights", "share"), [("float32", 4), ("bfloat16", 2), ("int8", 1), ("int4", 0.5)])
def test_weights_are_stored_as_asked(weights: str, share: float) -> None:
    picture = memory_wall.forecast_of(LLAMA, H100, weights=weights, batch=1, context=16)
    kv = 4 if weights == "float32" else 2
    cost = decode_cost(LLAMA, 15, bytes_per_weight=share, bytes_per_kv=kv)
    assert places(picture)[1][0] == pytest.approx(cost.intensity)


def test_what_does_not_fit_is_said() -> None:
    fits = memory_wall.forecast_of(LLAMA, H100, weights="bfloat16", batch=1, context=16)
    assert re.search(r"^Fits: needs 15 of 80 GiB$", words(fits), re.MULTILINE)
    large = memory_wall.forecast_of(
        KNOWN_MODELS["llama_3_70b"], H100, weights="bfloat16", batch=1, context=16
    )
    (said,) = [text for text in large.axes[1].texts if "Does not fit" in text.get_text()]
    assert said.get_color() == REJECTED


def test_the_roofline_stays_where_it_is_while_the_numbers_beside_it_grow() -> None:
    bounds = []
    for batch, context in ((1, 16), (1024, 131_072)):
        picture = memory_wall.forecast_of(LLAMA, H100, weights="bfloat16", batch=batch, context=context)
        picture.draw_without_rendering()
        bounds.append(picture.axes[0].get_position().bounds)
        right = max(text.get_window_extent().x1 for text in picture.axes[1].texts)
        assert right <= picture.bbox.x1  # and no number is cut off
    assert bounds[0] == pytest.approx(bounds[1])


def test_the_calculator_redraws_and_keeps_its_values() -> None:
    explorer = memory_wall.calculator(KNOWN_MODELS, KNOWN_GPUS)
    before, draws = explorer.png, explorer.num_draws
    explorer.set(batch=64, machine="B200", weights="int4")
    assert explorer.num_draws == draws + 1 and explorer.png != before
    assert explorer.values == {
        "model": "llama_2_7b",
        "machine": "B200",
        "weights": "int4",
        "batch": 64,
        "context": 1024,
    }


def test_times_are_drawn_in_milliseconds_beside_their_bound() -> None:
    decode = [Timing(n, decode_cost(LLAMA, 100, n), 0.01 * n, 0.001) for n in (1, 2, 4)]
    prefill = [Timing(n, prefill_cost(LLAMA, n), 0.02, 0.001) for n in (1, 1024)]
    picture = memory_wall.times_of(decode, prefill, A100, "bfloat16", context=101)
    measured, overhead, bound = (line.get_ydata() for line in picture.axes[0].lines)
    assert list(measured) == pytest.approx([10, 20, 40]) and list(overhead) == pytest.approx([1, 1, 1])
    assert list(bound) == pytest.approx([1e3 * time_at(t.cost, A100, "bfloat16").seconds for t in decode])
    assert "ridge" not in [t.get_text() for t in picture.axes[0].texts]  # three requests do not reach it
    assert "ridge" in [t.get_text() for t in picture.axes[1].texts]


def test_the_axis_has_room_for_the_ridge_and_all_dots() -> None:
    dots = [
        Dot("near", decode_cost(LLAMA, 1000), DECODE, seconds=1.0),
        Dot("far", prefill_cost(LLAMA, 100_000), PREFILL, seconds=1.0),
    ]
    low, high = memory_wall.run_of(A100, "bfloat16", dots, 0).axes[0].get_xlim()
    assert low < min(dot.cost.intensity for dot in dots) / 4
    assert high > max(dot.cost.intensity for dot in dots) * 4
    low, high = memory_wall.run_of(A100, "bfloat16", dots[:1], 0).axes[0].get_xlim()
    assert low < ridge(A100, "bfloat16") < high < 10_000
