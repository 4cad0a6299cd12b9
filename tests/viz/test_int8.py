"""Chapter 6's pictures show their numbers: ticks on the grid, errors as they are, formats as torch has them."""

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from minillm.quantization.absmax import Grid, fake_quantise
from minillm.viz import int8
from minillm.viz.int8 import ACTIVATIONS, WEIGHTS
from minillm.viz.style import FAINT, REJECTED, Picture

ROW = torch.tensor([0.1, -0.3, 0.2, 0.6, -0.5, 0.4, 0.05, -0.2])


def title(axes: Axes) -> str:
    return axes.get_title(loc="left")


def ticks(axes: Axes, number: int) -> list[float]:
    """The places of the vertical lines that were drawn as collection `number`."""
    return [round(float(segment[0][0]), 4) for segment in axes.collections[number].get_segments()]


def test_the_ticks_are_the_values_of_the_grid_and_the_dots_the_weights() -> None:
    line = int8.number_line_figure(ROW, 3, 8, 1.0).axes[0]
    step = 0.6 / 3.5
    assert ticks(line, 0) == pytest.approx([number * step for number in range(-4, 4)], abs=1e-4)
    assert list(line.lines[0].get_xdata()) == pytest.approx(ROW.tolist())


def test_with_groups_there_are_two_lines_the_outliers_group_first() -> None:
    line = int8.number_line_figure(ROW.flip(0), 3, 4, 2.0).axes[0]
    first, second = ticks(line, 0), ticks(line, 2)
    assert first[-1] == pytest.approx(3 * 1.2 / 3.5, abs=1e-4)
    assert second[-1] == pytest.approx(3 * 0.5 / 3.5, abs=1e-4)
    assert [label.get_text().replace("\n", " ") for label in line.get_yticklabels()] == [
        "group of the largest weight",
        "another group",
    ]


def test_the_ranges_and_errors_are_those_of_each_column() -> None:
    _, weights, errors = int8.number_line_figure(ROW, 3, 4, 1.0).axes
    band = weights.collections[0]
    assert to_hex(band.get_facecolor()[0]).upper() == WEIGHTS
    reach = {round(float(y), 4) for y in band.get_paths()[0].vertices[:, 1]}
    ends = [number * largest / 3.5 for largest in (0.6, 0.5) for number in (-4, 3)]
    assert reach == {round(end, 4) for end in ends}
    wanted = (fake_quantise(ROW[None], 3, 4)[0] - ROW).abs()
    assert [bar.get_height() for bar in errors.patches] == pytest.approx(wanted.tolist(), abs=1e-6)
    assert {to_hex(bar.get_facecolor()).upper() for bar in errors.patches} == {REJECTED}


def test_the_error_leaves_the_largest_weight_out() -> None:
    rounded = fake_quantise(ROW[None], 4)[0]
    others = torch.tensor([0, 1, 2, 4, 5, 6, 7])
    wanted = ((rounded - ROW)[others].square().mean() / ROW[others].square().mean()).sqrt()
    assert int8.row_error(ROW, 4) == pytest.approx(float(wanted))
    assert int8.row_error(ROW, 4, outlier=4.0) > 2 * int8.row_error(ROW, 4)
    assert f"{int8.row_error(ROW, 4):.2%}" in title(int8.number_line_figure(ROW, 4, 8, 1.0).axes[0])
    assert ROW[3] == torch.tensor(0.6), "the row itself stays"


def test_the_sliders_offer_the_group_sizes_that_divide_the_row() -> None:
    explorer = int8.number_line(torch.randn(768))
    group = explorer._controls["group_size"]
    assert [size for _, size in group.options] == [768, 256, 128, 64, 32]
    before = explorer.png
    explorer.set(bits=8, group_size=128, outlier=4.0)
    assert explorer.values == {"bits": 8, "group_size": 128, "outlier": 4.0} and explorer.png != before
    odd = int8.number_line(torch.randn(100))
    assert [size for _, size in odd._controls["group_size"].options] == [100]


def test_the_last_matrix_stands_out_from_the_others() -> None:
    axes = int8.groups_figure({"qkv": [0.02, 0.01], "down": [0.04, 0.02]}, ["a row", "32"]).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[2, 1], [4, 2]]
    assert [to_hex(line.get_color()).upper() for line in axes.lines] == [FAINT, REJECTED]


def test_fp8_has_the_numbers_of_torchs_type() -> None:
    numbers = int8.fp8_numbers()
    assert numbers[-1] == 448 and numbers[0] == 2.0**-9
    assert torch.equal(numbers.to(torch.float8_e4m3fn).float(), numbers) and bool((numbers.diff() > 0).all())


def test_the_formats_are_counted() -> None:
    picture = int8.formats_figure(torch.tensor([[1.0, 0.01, -0.04, 0.5]]), zoom=1 / 16)
    titles = [title(axes) for axes in picture.axes]
    assert titles == [
        "INT8: 127 positive values",
        "INT8: 7 positive values up to 1/16",
        "FP8: 126 positive values",
        "FP8: 94 positive values up to 1/16",
        "100% of the weights",
        "50% of the weights",
    ]
    assert len(ticks(picture.axes[1], 0)) == 7 and len(ticks(picture.axes[3], 0)) == 94


def test_the_peak_is_the_largest_over_the_others() -> None:
    rows = torch.tensor([[1.0, -1.0, 1.0, -8.0], [3.0, 3.0, 3.0, 3.0]])
    assert int8.peaks(rows).tolist() == pytest.approx([8, 1])
    assert int8.peaks(int8.bell(4096, 12.0)[None]).item() == pytest.approx(12, rel=0.01)


def test_int8_suffers_from_a_peak_and_fp8_does_not() -> None:
    low, high = (int8.format_errors(int8.bell(4096, peak)) for peak in (4, 32))
    assert high["INT8"] == pytest.approx(8 * low["INT8"], rel=0.05)
    assert high["FP8"] == pytest.approx(low["FP8"], rel=0.05)
    values = int8.bell(64, 5.0)
    grid = Grid.of(values[None], 8)
    rounded = grid.dequantise(grid.round(values[None]))[0]
    assert int8.format_errors(values)["INT8"] == pytest.approx(
        int8.relative_error(values[:-1], rounded[:-1]), rel=1e-5
    )


def test_the_crossing_has_its_lines_and_the_models_peaks() -> None:
    errors = [{"INT8": 0.01, "FP8": 0.03}, {"INT8": 0.05, "FP8": 0.02}]
    axes = int8.crossing_figure([4, 32], errors, {"a row": 5.0}).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines[:2]] == [[1, 5], [3, 2]]
    assert list(axes.lines[2].get_xdata()) == [5, 5]
    assert {"INT8", "FP8", "a row"} <= {text.get_text() for text in axes.texts}


def test_the_channels_are_bars_with_their_ratio() -> None:
    x_max, w_max = torch.tensor([1.0, 32.0, 1.0]), torch.tensor([0.5, 0.1, 0.5])
    top, bottom = int8.channels_figure({"planted": (x_max, w_max)}).axes
    assert [bar.get_height() for bar in top.patches] == x_max.tolist()
    assert [bar.get_height() for bar in bottom.patches] == pytest.approx(w_max.tolist())
    assert title(top) == "planted:\nlargest / median 32.0"
    assert to_hex(top.patches[0].get_facecolor()).upper() == ACTIVATIONS
    assert to_hex(bottom.patches[0].get_facecolor()).upper() == WEIGHTS


def bars(picture: Picture) -> list[list[float]]:
    return [[bar.get_width() for bar in axes.patches] for axes in picture.axes]


def test_quality_and_bytes_are_bars_with_their_numbers() -> None:
    picture = int8.quality_figure({"int8": (0.0003, 0.01), "w8a8": (0.0014, 0.021)})
    assert bars(picture) == [[0.0003, 0.0014], pytest.approx([1, 2.1])]
    assert [text.get_text().strip() for text in picture.axes[1].texts] == ["1.0 %", "2.1 %"]
    picture = int8.bytes_figure({"16 bits": 16e9, "8 bits": 8e9}, 2e12, "an A100")
    assert bars(picture) == [[16, 8]]
    assert [text.get_text().strip() for text in picture.axes[0].texts] == [
        "16.0 GB, read in 8.0 ms",
        "8.0 GB, read in 4.0 ms",
    ]


def test_speed_is_relative_to_the_first_product() -> None:
    seconds = {"float": [1.0, 2.0], "int8": [0.5, 4.0], "w8a8": [1.0, 1.0]}
    axes = int8.rows_figure([1, 64], seconds, "A matrix").axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[2, 0.5], [1, 2]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["int8", "w8a8"]
    grey = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (grey.y0, grey.y1) == pytest.approx((0, 1)) and "grey: slower" in axes.get_xlabel()
