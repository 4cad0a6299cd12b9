from collections.abc import Iterator

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

import torch
from matplotlib.colors import to_rgba

from minillm.viz import flash_attention as pictures
from minillm.viz.flash_attention import Tile, plain_bytes, tiled_bytes
from minillm.viz.style import DECODE, KV, PREFILL, WASTE

NUM_TOKENS, HEAD_DIM = 6, 4
WORDS = ["Once", " upon", " a", " time", "\n", " there"]


def walk(size: int) -> Iterator[Tile]:
    """The chapter's loop, on six tokens whose scores grow with the key."""
    scores = torch.arange(NUM_TOKENS).float().expand(NUM_TOKENS, NUM_TOKENS)
    values = torch.eye(NUM_TOKENS)[:, :HEAD_DIM]
    moved = 0
    for first in range(0, NUM_TOKENS, size):
        rows = min(size, NUM_TOKENS - first)
        m, l, acc = torch.full((rows,), -torch.inf), torch.zeros(rows), torch.zeros(rows, HEAD_DIM)
        for start in range(0, first + rows, size):
            tile = scores[first : first + rows, start : start + size]
            seen = torch.ones(rows, tile.shape[1], dtype=torch.bool).tril(first - start)
            tile = tile.masked_fill(~seen, -torch.inf)
            new_m = torch.maximum(m, tile.amax(-1))
            p, fade = torch.exp(tile - new_m[:, None]), torch.exp(m - new_m)
            l, m = l * fade + p.sum(-1), new_m
            acc = acc * fade[:, None] + p @ values[start : start + size]
            moved += 1000
            yield Tile(first, start, tile, m, l, acc, moved)


def test_bytes_of_attention_written_out() -> None:
    sizes = plain_bytes(8, 3, 4)
    assert sizes["Q, K, V read"] == 3 * 8 * 3 * 4 and sizes["out written"] == 8 * 3 * 4
    assert [sizes[name] for name in list(sizes)[1:5]] == [8 * 8 * 4] * 4


@pytest.mark.parametrize(
    ("tile", "causal", "keys"), [(4, True, 4 + 8 + 10), (4, False, 3 * 10), (16, True, 10), (1, True, 55)]
)
def test_bytes_of_tiled_attention(tile: int, causal: bool, keys: int) -> None:
    """Ten tokens: K and V are read up to the diagonal's tile for each tile of queries."""
    row = 3 * 2
    wanted = {"Q read": 10 * row, "K, V read": 2 * keys * row, "out written": 10 * row}
    assert tiled_bytes(10, 3, tile, causal=causal) == wanted


@pytest.mark.parametrize(("tile", "verdict"), [(128, "×3.8 less"), (16, "×2.0 more")])
def test_the_bars_are_the_bytes(tile: int, verdict: str) -> None:
    axes = pictures.bytes_figure(4096, 128, tile).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    sizes = [*plain_bytes(4096, 128).values(), *tiled_bytes(4096, 128, tile).values()]
    assert widths == pytest.approx([size / 1e6 for size in sizes])
    orange = [bar.get_facecolor() == to_rgba(PREFILL) for bar in axes.patches]
    assert orange == [False, True, True, True, True, False, False, False, False]
    assert axes.get_title(loc="left").endswith(verdict)


def test_bytes_explorer_draws_anew() -> None:
    explorer = pictures.bytes_explorer()
    first = explorer.png
    explorer.set(tokens=64)
    assert explorer.png != first and explorer.values == {"tokens": 64, "head_dim": 128, "tile": 128}


def test_the_current_tile_is_framed_and_later_ones_are_hatched() -> None:
    figure = pictures.walk_figure(list(walk(2)), WORDS, 9000, 2)
    matrix = figure.axes[0]
    assert matrix.images[0].get_extent() == [-0.5, 1.5, 3.5, 1.5]  # queries 2 and 3, keys 0 and 1
    hatched = [patch.get_xy() for patch in matrix.patches if patch.get_hatch()]
    assert hatched == [(1.5, -0.5), (3.5, -0.5), (3.5, 1.5)]
    assert figure.get_suptitle() == "Tile 2 of 6: queries 2–3, keys 0–1"
    strips = {patch.get_facecolor(): patch for patch in matrix.patches}
    keys, queries = strips[to_rgba(KV)], strips[to_rgba(DECODE)]
    assert (keys.get_x(), keys.get_width()) == (-0.5, 2) and (queries.get_y(), queries.get_height()) == (
        1.5,
        2,
    )


def test_one_row_is_on_the_number_line_and_its_sum_is_written() -> None:
    """Row 2 sees the keys 0 to 2, whose scores are their numbers: 1 + e, faded by 1 / e, and then 1."""
    matrix, line, _ = pictures.walk_figure(list(walk(2)), WORDS, 9000, 3).axes
    assert line.get_title(loc="left") == "Query 2 ('a'): m rises from 1.00 to 2.00"
    places = {dots.get_color(): list(dots.get_xdata()) for dots in line.lines if dots.get_marker() == "o"}
    assert places == {WASTE: [0, 1], PREFILL: [2]}
    heights = [segment[1][1] for bars in line.collections for segment in bars.get_segments()]
    assert heights == pytest.approx([torch.e**-2, torch.e**-1, 1])
    written = {text.get_text() for text in line.texts}
    assert written == {"old m", "m", "l = 1.368 · 0.368 + 1.000 = 1.503"}
    (followed,) = [patch for patch in matrix.patches if patch.get_edgecolor() == to_rgba(DECODE)]
    assert (followed.get_y(), followed.get_height()) == (1.5, 1)


def test_the_first_tile_of_a_row_has_nothing_to_rescale() -> None:
    line = pictures.walk_figure(list(walk(2)), WORDS, 9000, 2).axes[1]
    assert line.get_title(loc="left") == "Query 2 ('a'): m = 1.00"
    assert "l = 1.368, all from this tile" in [text.get_text() for text in line.texts]


def test_a_maximum_that_does_not_rise_stays() -> None:
    def tile(start: int, total: float) -> Tile:
        scores = torch.tensor([[3.0 - start, 3.0 - start]])
        return Tile(0, start, scores, torch.tensor([3.0]), torch.tensor([total]), torch.ones(1, 4), 1)

    line = pictures.walk_figure([tile(0, 1.0), tile(2, 2.0)], WORDS[:4], 9000, 2).axes[1]
    assert line.get_title(loc="left") == "Query 0 ('Once'): m = 3.00, as before"
    assert {text.get_text() for text in line.texts} == {"m", "l = 1.000 · 1.000 + 1.000 = 2.000"}


def test_bytes_so_far_and_at_the_end() -> None:
    axes = pictures.walk_figure(list(walk(2)), WORDS, 9000, 2).axes[-1]
    assert [bar.get_width() for bar in axes.patches] == [6, 2, 9]
    assert [text.get_text().strip() for text in axes.texts] == ["2.0 of 6.0 kB", "9.0 kB"]


@pytest.mark.parametrize(("size", "steps"), [(1, 21), (2, 6), (4, 3), (6, 1)])
def test_a_size_starts_a_new_walk_and_no_step_is_beyond_it(size: int, steps: int) -> None:
    walked: list[int] = []

    def run(size: int) -> list[Tile]:
        walked.append(size)
        return list(walk(size))

    explorer = pictures.walk_explorer(run, [1, 2, 4, 6], WORDS, 9000, size=2, step=6)
    explorer.set(tile_size=size)
    explorer.set(at=100)
    assert explorer.values == {"tile_size": size, "at": steps}
    assert explorer.box.children[1].disabled == (steps == 1)
    assert sorted(walked) == sorted({2, size})  # each walked once


def test_memory_is_in_megabytes_and_close_labels_part() -> None:
    peaks = {"a": [10**6, 2 * 10**8], "b": [10**6, 19 * 10**7], "c": [10**6, 10**6]}
    axes = pictures.memory_figure([512, 1024], peaks).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 200], [1, 190], [1, 1]]
    shifts = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert shifts["b: 190.0 MB"] == shifts["c: 1.0 MB"] == 0 and shifts["a: 200.0 MB"] > 10


def test_speed_is_a_multiple() -> None:
    axes = pictures.speed_figure([64, 128], {"torch's": [0.5, 3.0]}).axes[0]
    assert list(axes.lines[0].get_ydata()) == [0.5, 3.0] and list(axes.lines[1].get_ydata()) == [1, 1]
    assert [text.get_text() for text in axes.texts] == ["written out: ×1", "torch's: ×3.0"]
