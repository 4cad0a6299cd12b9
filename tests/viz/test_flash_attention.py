from collections.abc import Iterator

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

import torch
from matplotlib.colors import to_rgba

from minillm.viz import flash_attention as pictures
from minillm.viz.flash_attention import Tile, plain_bytes, tiled_bytes
from minillm.viz.style import DECODE, KV, PREFILL

NUM_TOKENS, HEAD_DIM = 6, 4


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
            yield Tile(first, start, p, m, l, acc, moved)


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
    matrix = pictures.walk_figure(list(walk(2)), NUM_TOKENS, 9000, 2).axes[0]
    assert matrix.images[0].get_extent() == [-0.5, 1.5, 3.5, 1.5]  # queries 2 and 3, keys 0 and 1
    hatched = [patch.get_xy() for patch in matrix.patches if patch.get_hatch()]
    assert hatched == [(1.5, -0.5), (3.5, -0.5), (3.5, 1.5)]
    assert matrix.get_title(loc="left") == "Tile 2 of 6"
    (read,) = [line for line in matrix.lines if line.get_color() == KV]
    assert list(read.get_xdata()) == [-0.5, 1.5]


def test_the_sum_of_one_row_is_a_share_of_its_end_and_its_maxima_are_written() -> None:
    """Row 2 sees the keys 0 to 2, whose scores are their numbers: 1 + e of 1 + e + e², and then all of it."""
    matrix, running, _ = pictures.walk_figure(list(walk(2)), NUM_TOKENS, 9000, 3).axes
    assert [bar.get_height() for bar in running.patches] == pytest.approx(
        [(1 + torch.e) / (1 + torch.e + torch.e**2), 1]
    )
    assert [text.get_text() for text in running.texts] == ["1.0", "2.0"]
    assert running.get_title(loc="left").startswith("Query 2:")
    assert [label.get_text() for label in running.get_xticklabels()] == ["1", "3"]
    (followed,) = [patch for patch in matrix.patches if patch.get_edgecolor() == to_rgba(DECODE)]
    assert (followed.get_y(), followed.get_height()) == (1.5, 1)


def test_a_maximum_that_does_not_rise_is_written_once() -> None:
    def tile(start: int, total: float) -> Tile:
        return Tile(
            0, start, torch.ones(1, 2), torch.tensor([3.0]), torch.tensor([total]), torch.ones(1, 4), 1
        )

    running = pictures.walk_figure([tile(0, 1.0), tile(2, 2.0)], 4, 9000, 2).axes[1]
    assert [text.get_text() for text in running.texts] == ["3.0"]
    assert [bar.get_height() for bar in running.patches] == [0.5, 1]


def test_bytes_so_far_and_at_the_end() -> None:
    axes = pictures.walk_figure(list(walk(2)), NUM_TOKENS, 9000, 2).axes[-1]
    whole, so_far, dot, plain = axes.lines
    assert list(whole.get_ydata()) == [0, 1, 2, 3, 4, 5, 6]
    assert list(so_far.get_ydata()) == [0, 1, 2] and list(dot.get_ydata()) == [2]
    assert list(plain.get_ydata()) == [9, 9]
    assert axes.get_title(loc="left") == "2.0 kB through slow memory so far"


@pytest.mark.parametrize(("size", "steps"), [(1, 21), (2, 6), (4, 3), (6, 1)])
def test_a_size_starts_a_new_walk_and_no_step_is_beyond_it(size: int, steps: int) -> None:
    walked: list[int] = []

    def run(size: int) -> list[Tile]:
        walked.append(size)
        return list(walk(size))

    explorer = pictures.walk_explorer(run, [1, 2, 4, 6], NUM_TOKENS, 9000, size=2, step=6)
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
