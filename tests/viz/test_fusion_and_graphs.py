import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

import torch
from matplotlib.colors import to_rgba

from minillm.batch import Batch, Chunk
from minillm.engine.graphs import ladder
from minillm.measure.costs import decode_cost
from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.known_models import KNOWN_MODELS
from minillm.viz import fusion_and_graphs as pictures
from minillm.viz.launches import Call, Launch, Timeline
from minillm.viz.style import DECODE, FAINT, INK, KV, WASTE

STEP = Timeline(
    10e-3,
    (
        Launch("matmul", 1e-3, 4e-3),
        Launch("view", 4e-3, 4.5e-3),
        Launch("index_copy_", 5e-3, 6e-3),
        Launch("add", 7e-3, 9e-3),
    ),
    "cpu",
)
SHORT = Timeline(4e-3, (Launch("matmul", 0.0, 4e-3),), "cpu")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("matmul", "matrix product"),
        ("sm90_xmma_gemm_bf16", "matrix product"),
        ("nvjet_tst_128x64", "matrix product"),
        ("scaled_dot_product_attention", "attention and cache"),
        ("_paged_attention", "attention and cache"),
        ("index_copy_", "attention and cache"),
        ("rms_norm", "between them"),
        ("_rope", "between them"),
        ("slice", "view"),
        ("transpose", "view"),
    ],
)
def test_what_a_launch_is_for(name: str, kind: str) -> None:
    assert pictures.kind(name) == kind


def test_the_bars_are_the_launches_and_the_rest_is_the_gap() -> None:
    axes = pictures.timeline_figure({"run": [STEP]}, 1, 1, 0).axes[0]
    gap, *bars = axes.patches
    assert (gap.get_x(), gap.get_width()) == (0, pytest.approx(10)) and gap.get_facecolor() == to_rgba(WASTE)
    assert [bar.get_x() for bar in bars] == pytest.approx([1, 4, 5, 7])
    assert [bar.get_width() for bar in bars] == pytest.approx([3, 0.5, 1, 2])
    assert [bar.get_facecolor() for bar in bars] == [to_rgba(c) for c in (DECODE, FAINT, KV, INK)]
    title = axes.get_title(loc="left")
    assert title == "run: 4 operator calls in 10.00 ms, none running in 35% of it"
    assert "profile of the CPU, step 1" in axes.get_xlabel()


def test_a_window_shows_its_part_of_the_longest_run() -> None:
    figure = pictures.timeline_figure({"long": [SHORT, STEP], "short": [SHORT]}, 2, 5, 100)
    assert figure.axes[0].get_xlim() == pytest.approx((8, 10))
    drawn = [[patch.get_x() for patch in axes.patches[1:]] for axes in figure.axes]
    assert drawn == [[pytest.approx(7)], []]
    assert figure.axes[1].texts[0].get_text().strip() == "ended at 4.00 ms"


def test_kernels_are_called_kernels() -> None:
    on_gpu = Timeline(STEP.seconds, STEP.launches, "cuda")
    axes = pictures.timeline_figure({"run": [on_gpu]}, 1, 1, 0).axes[0]
    assert "4 kernels" in axes.get_title(loc="left") and "profile of the GPU" in axes.get_xlabel()


def test_the_step_that_shows_first_is_the_fastest() -> None:
    assert pictures.fastest({"run": [STEP, SHORT, STEP]}) == 2
    assert pictures.fastest({"one": [SHORT, STEP], "other": [STEP, SHORT, SHORT]}) == 1
    assert pictures.in_words("run", STEP) == "run: 4 operator calls in 10.00 ms, none running in 35% of it"


def test_a_moved_slider_draws_anew() -> None:
    explorer = pictures.timeline_explorer({"run": [STEP, SHORT, STEP]})
    assert explorer.values == {"step": 2, "zoom": 6, "place": 40}
    first = explorer.png
    explorer.set(step=3)
    assert explorer.png != first


def test_launches_a_layer_and_bytes_of_a_chain() -> None:
    def calls(*names: str) -> list[Call]:
        return [Call(name, False) for name in names]

    steps = {"plain": calls("matmul", "add", "mul", "add"), "fused": calls("matmul", "add_rms_norm")}
    figure = pictures.fusion_figure(steps, {"norm": {"plain": 4000, "fused": 1000}}, 2, "1 token")
    left, right = figure.axes
    widths = [bar.get_width() for bar in left.patches]
    assert widths == [0.5, 0, 1.5, 0.5, 0, 0.5]
    assert [bar.get_width() for bar in right.patches] == [4, 1]
    assert [text.get_text().strip() for text in right.texts] == ["4", "1  -75%"]


def test_padding_is_what_the_next_size_has_too_much() -> None:
    assert [pictures.next_size([1, 2, 4, 8], n) for n in (1, 3, 8, 9)] == [1, 4, 8, None]
    assert pictures.wasted_rows([1, 2, 4, 8], [3]) == pytest.approx(1 / 4)
    assert pictures.wasted_rows([8], [1, 7]) == pytest.approx(1 / 2)
    assert pictures.wasted_rows([8], [9]) == 0, "beyond the ladder nothing is padded"


def test_the_ladders_curve_and_the_runs_share() -> None:
    figure = pictures.ladder_figure({"one size": [8], "ours": ladder(8)}, [1, 1, 8, 6], 3)
    curve, steps, bars = figure.axes
    assert list(curve.lines[0].get_ydata()) == pytest.approx([100 * (8 - n) / 8 for n in range(1, 9)])
    assert list(curve.lines[1].get_ydata()) == pytest.approx([0, 0, 25, 0, 37.5, 25, 12.5, 0])
    assert [patch.get_height() for patch in steps.patches] == [2, 0, 0, 0, 0, 1, 0, 1]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([50, 100 * 2 / 18])
    said = [text.get_text() for text in curve.get_legend().get_texts()]
    assert said == ["one size: as 8", "ours: as 4"]


FRAME = pictures.Frame(
    4, 3, [10, 20, 30, -1, 77], [9, 1, 8, 0, 5], [[1, 2, 3], [4, 9, 9], [5, 6, 7], [8, 8, 8], [9, 9, 9]], 8
)


def test_the_cells_of_the_buffers_are_live_stale_or_padding() -> None:
    axes = pictures.buffers_figure([FRAME], 1).axes[0]
    faces = [cell.get_facecolor() for cell in axes.patches]
    columns = len(faces) // 5
    rows = [faces[row * columns : (row + 1) * columns] for row in range(5)]
    d, k, p, white = (to_rgba(color) for color in (DECODE, KV, WASTE, "white"))
    stale = columns - 3
    assert rows[0] == [d, d, k, k] + [white] * (stale - 1), "9 tokens in blocks of 8: two of them"
    assert rows[1] == rows[2] == [d, d, k] + [white] * stale
    assert rows[3] == [p, p] + [white] * (stale + 1)
    assert rows[4] == [white] * columns
    assert axes.get_title(loc="left") == "Replay 1: 3 requests run as the graph of 4 rows, 1 of them padding"


def test_a_watched_graph_leaves_a_frame_of_each_replay() -> None:
    class Graphs:
        """Replays the size that it is told to."""

        def __init__(self) -> None:
            self._buffers = Batch.of([Chunk([1], 3, [0])] * 4, 8)
            self.cache = type("Cache", (), {"block_size": 8})
            self._replay = {size: lambda: None for size in (1, 2, 4)}

        def run(self, batch: Batch) -> torch.Tensor | None:
            if len(batch.seq_lens) > 4:
                return None
            self._replay[4 if len(batch.seq_lens) > 1 else 2]()
            return torch.zeros(len(batch.seq_lens), 5)

    graphs, frames = Graphs(), []
    pictures.watch(graphs, frames)
    for requests in (3, 5, 1):
        graphs.run(Batch.of([Chunk([1], 3, [0])] * requests, 8))
    assert [(frame.num_requests, frame.size) for frame in frames] == [(3, 4), (1, 2)]
    assert frames[0].slots == [3] * 4 and frames[0].lengths == [4] * 4


def test_a_graph_gains_what_launching_takes_longer() -> None:
    llama = KNOWN_MODELS["llama_3_8b"]
    seconds = decode_cost(llama, 1024).bytes / KNOWN_GPUS["H100"].read_bandwidth
    launches = 3 * seconds / 5e-6
    assert pictures.graph_gain(llama, launches, "H100", 5) == pytest.approx(3)
    assert pictures.graph_gain(llama, launches / 10, "H100", 5) == 1
    axes = pictures.bound_figure({"8B": llama}, {"many": lambda _: launches}, "H100", 5, 1).axes[0]
    work, host = (bar.get_width() for bar in axes.patches)
    assert (work, host) == (pytest.approx(1e3 * seconds), pytest.approx(3e3 * seconds))
    assert axes.texts[0].get_text().strip() == "a graph gives ×3.00"


def test_a_model_that_does_not_fit_is_said_to_be_too_large() -> None:
    models = {name: KNOWN_MODELS[f"llama_3_{name}"] for name in ("8b", "70b")}
    axes = pictures.bound_figure(models, {"fused": lambda _: 1.0}, "H100", 5, 1).axes[0]
    said = [text.get_text().strip() for text in axes.texts]
    assert said == ["the launches hide: ×1", "the launches hide: ×1 (but it does not fit this GPU)"]


def test_the_bound_moves_with_its_sliders() -> None:
    explorer = pictures.bound_explorer({"8B": KNOWN_MODELS["llama_3_8b"]}, {"fused": lambda _: 300.0})
    first = explorer.png
    explorer.set(us_a_launch=20)
    assert explorer.png != first
