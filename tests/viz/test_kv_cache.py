from collections.abc import Sequence
from typing import Literal

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

from matplotlib.colors import to_hex, to_rgba

from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.known_models import KNOWN_MODELS
from minillm.measure.trace import Phases, ScheduledRequest, StepRecord, Trace
from minillm.viz import kv_cache
from minillm.viz.style import DECODE, KV, PREFILL, WASTE

Part = tuple[int, int, Literal["prefill", "decode"]]


def trace(parts: Sequence[Part], seconds: Sequence[float] = (), request: str = "0") -> Trace:
    """One step a part, each of its own length in seconds (1 ms)."""
    made, now = Trace(), 0.0
    for i, (computed, tokens, kind) in enumerate(parts):
        end = now + (seconds[i] if seconds else 1e-3)
        scheduled = [ScheduledRequest(request, kind, computed, tokens)]
        made.append(StepRecord(i, now, end, scheduled, 0, 1, Phases(0, 0, 0, 0)))
        now = end
    return made


NAIVE = trace([(0, n, "prefill") for n in (3, 4, 5)], [0.030, 0.040, 0.050])
CACHED = trace([(0, 3, "prefill"), (3, 1, "decode"), (4, 1, "decode")], [0.030, 0.010, 0.020])
CHUNKS = trace([(0, 2, "prefill"), (2, 1, "prefill"), (3, 1, "decode"), (4, 1, "decode")])


def test_the_cells_are_those_of_the_step() -> None:
    figure = kv_cache.work_figure({"none": NAIVE, "cache": CACHED, "chunks": CHUNKS}, 2)
    shown = [axes.images[0].get_array().tolist() for axes in figure.axes]
    empty = [0] * 5
    assert shown[0] == [[2, 0, 0, 0, 0], [2, 2, 0, 0, 0], [2, 2, 2, 0, 0], [2, 2, 2, 2, 0], empty]
    assert shown[1] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [3, 3, 3, 3, 0], empty]
    assert shown[2] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [2, 2, 2, 0, 0], empty, empty]
    colors = [to_hex(figure.axes[0].images[0].cmap(i)).upper() for i in (1, 2, 3)]
    assert colors == [KV, PREFILL, DECODE]


def test_the_cells_are_counted() -> None:
    axes = kv_cache.work_figure({"none": NAIVE, "cache": CACHED}, 3).axes
    assert [a.get_xlabel().split("\n")[1] for a in axes] == [
        "15 cells now, 31 so far",
        "5 cells now, 15 so far",
    ]
    later = kv_cache.work_figure({"none": NAIVE}, 9).axes[0]
    assert later.get_xlabel().endswith("ended at step 3: 15 cells now, 31 so far")


def test_a_trace_of_two_requests_is_refused() -> None:
    two = trace([(0, 3, "prefill")])
    two += trace([(0, 3, "prefill")], request="1")
    with pytest.raises(ValueError, match=r"The trace has 2: \['0', '1'\]"):
        kv_cache.work_figure({"two": two}, 1)


def test_each_dot_is_a_step_and_the_bars_are_their_sums() -> None:
    left, right = kv_cache.time_figure(NAIVE, CACHED, 4).axes
    dots = [(list(line.get_xdata()), list(line.get_ydata())) for line in left.lines[:4]]
    assert dots[0] == ([3, 4, 5], pytest.approx([30, 40, 50]))
    assert dots[1] == ([4], pytest.approx([40]))
    assert dots[2] == ([3, 4, 5], pytest.approx([30, 10, 20]))
    assert dots[3] == ([4], pytest.approx([10]))
    assert [bar.get_width() for bar in right.patches] == pytest.approx([0.070, 0.040])
    assert [text.get_text().strip() for text in right.texts] == ["70 ms", "40 ms"]
    assert (
        right.get_xlim() == kv_cache.time_figure(NAIVE, CACHED, 5).axes[1].get_xlim()
    )  # so that the bars grow
    assert left.get_legend().get_title().get_text() == "at 4 tokens: ×4.0"
    assert left.get_ylabel() == "milliseconds"


@pytest.mark.parametrize(("position", "at"), [(0, 3), (5, 5), (99, 5)])
def test_a_position_beyond_the_run_is_its_end(position: int, at: int) -> None:
    left = kv_cache.time_figure(NAIVE, CACHED, position).axes[0]
    assert left.get_legend().get_title().get_text().startswith(f"at {at} tokens")


def test_the_bars_are_the_bytes_of_weights_and_cache() -> None:
    model = KNOWN_MODELS["llama_3_8b"]
    axes = kv_cache.memory_figure("llama_3_8b", 32, 8, 128, 8192, 32, "BF16", "A100").axes[0]
    weights, caches = axes.patches[::2], axes.patches[1::2]
    assert [bar.get_width() for bar in weights] == [pytest.approx(2 * model.num_parameters / 1e9)] * 3
    as_set = 32 * 8192 * model.kv_bytes_per_token(2) / 1e9
    assert [bar.get_width() for bar in caches] == pytest.approx([4 * as_set, as_set, as_set / 8])
    assert all(c.get_x() == w.get_width() for c, w in zip(caches, weights, strict=True))
    assert axes.lines[0].get_xdata()[0] == KNOWN_GPUS["A100"].memory_bytes / 1e9
    said = [text.get_text().strip() for text in axes.texts]
    assert said == ["137.4 GB: does not fit", "34.4 GB", "4.3 GB", "A100: 80 GiB"]


@pytest.mark.parametrize(("dtype", "factor"), [("FP32", 2), ("FP8", 0.5), ("INT4", 0.25)])
def test_the_dtype_is_that_of_the_cache_alone(dtype: str, factor: float) -> None:
    widths = [
        [
            bar.get_width()
            for bar in kv_cache.memory_figure("qwen3_0_6b", 4, 2, 64, 512, 3, d, "H200").axes[0].patches
        ]
        for d in ("BF16", dtype)
    ]
    assert widths[1][::2] == widths[0][::2]
    assert widths[1][1::2] == pytest.approx([factor * width for width in widths[0][1::2]])


def test_a_moved_slider_draws_anew_and_a_model_sets_its_shape() -> None:
    explorer = kv_cache.memory_explorer()
    first = explorer.png
    explorer.set(requests=64)
    assert explorer.png != first and explorer.values["requests"] == 64
    explorer.set(model="llama_3_70b")
    shape = {name: explorer.values[name] for name in ("layers", "kv_heads", "head_dim", "requests")}
    assert shape == {"layers": 80, "kv_heads": 8, "head_dim": 128, "requests": 64}


def test_there_are_no_more_kv_heads_than_query_heads() -> None:
    explorer = kv_cache.memory_explorer("llama_3_70b")
    explorer.set(kv_heads=64)
    explorer.set(model="llama_3_8b")
    assert explorer.values["kv_heads"] == 8
    explorer.set(kv_heads=64)
    assert explorer.values["kv_heads"] == 32


def test_a_cache_of_terabytes_is_said_in_terabytes() -> None:
    axes = kv_cache.memory_figure("llama_3_8b", 32, 1, 128, 131_072, 256, "BF16", "A100").axes[0]
    said = [text.get_text().strip() for text in axes.texts]
    assert said[:3] == ["17.6 TB: does not fit", *["549.8 GB: does not fit"] * 2]
    assert "as set: 1 KV head" in [label.get_text() for label in axes.get_yticklabels()]


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_every_known_model_can_be_chosen(name: str) -> None:
    explorer = kv_cache.memory_explorer(name)
    assert explorer.values["head_dim"] == KNOWN_MODELS[name].head_dim
    assert explorer.png.startswith(b"\x89PNG")


def test_a_row_is_what_was_used_and_what_was_not() -> None:
    config = KNOWN_MODELS["qwen3_0_6b"]
    figure = kv_cache.rows_figure(config, [100, 300], 400, 2)
    axes, token = figure.axes[0], config.kv_bytes_per_token(2) / 1e6
    widths = [bar.get_width() / token for bar in axes.patches]
    assert widths == pytest.approx([100, 300, 300, 100])
    assert [bar.get_facecolor() for bar in axes.patches] == [to_rgba(KV)] * 2 + [to_rgba(WASTE)] * 2
    assert axes.get_title(loc="left") == "50% of the reserved memory was never used"


def test_the_speed_up_is_written_at_each_length() -> None:
    axes = kv_cache.speedup_figure([1, 64], [0.002, 0.030], [0.002, 0.003]).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.0, 30.0], [2.0, 3.0]]
    assert {text.get_text() for text in axes.texts} == {"×1.0", "×10.0", "no cache", "KV cache"}
