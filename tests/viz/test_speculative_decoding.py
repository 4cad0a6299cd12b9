"""Chapter 10's pictures: bars are their numbers, p comes out whatever q is, the surface follows the formula."""

import pytest
import torch
from matplotlib.colors import to_hex

from minillm.viz import speculative_decoding as pictures
from minillm.viz.style import ACCEPTED, DECODE, REJECTED, WASTE

P = torch.tensor([0.5, 0.3, 0.2])
Q = torch.tensor([0.2, 0.7, 0.1])
POINT = pictures.Measured(acceptance=0.8, k=4, draft_cost=0.15, verify_cost=0.1, speed_up=1.6)


def word(token_id: int) -> str:
    return ["a", " ", "c"][token_id]


def heights(axes, color: str) -> list[float]:
    return [round(b.get_height(), 4) for b in axes.patches if to_hex(b.get_facecolor()) == color.lower()]


def table() -> dict:
    row = {"none": (1.0, 1.0), "n-gram": (1.2, 0.97), "suffix": (2.0, 1.4), "draft model": (3.0, 0.6)}
    return {"stories": row, "again": row, "refrain": row}


PICTURES = {
    "rows": lambda: pictures.rows_figure({1: 2e-3, 2: 2.5e-3, 5: 3e-3, 9: 4e-3}),
    "accept": lambda: pictures.accept_figure(P, Q, word),
    "outcome": lambda: pictures.outcome_figure(P, {"the rule": P, "accept all": Q}, word),
    "tokens": lambda: pictures.tokens_figure({1: 1.8, 4: 3.4}, 0.8),
    "tokens, all accepted": lambda: pictures.tokens_figure({1: 2, 8: 9}, 1.0),
    "surface": lambda: pictures.surface_figure(POINT, 0.15, 0.1, 4),
    "methods": lambda: pictures.methods_figure(table()),
    "losses": lambda: pictures.losses_figure(
        {"requests at once": {"1": 1.4, "32": 0.93}, "text": {"tales": 0.7}}
    ),
}


def test_the_parts_of_the_rule_are_those_of_the_example() -> None:
    kept, rejected, added = pictures.split(P, Q)
    for got, wanted in ((kept, [0.2, 0.3, 0.1]), (rejected, [0, 0.4, 0]), (added, [0.3, 0, 0.1])):
        assert got.tolist() == pytest.approx(wanted)
    picture = pictures.accept_figure(P, Q, word)
    _, drafts, _, out = picture.axes
    assert sorted(heights(drafts, ACCEPTED)) == pytest.approx([0.1, 0.2, 0.3])
    assert sorted(heights(drafts, REJECTED)) == pytest.approx([0, 0, 0.4])
    assert sorted(heights(out, DECODE)) == pytest.approx([0, 0.1, 0.3])
    assert drafts.get_title(loc="left") == "drafts: 60% accepted"


def test_what_comes_out_is_p_at_every_draft_temperature() -> None:
    explorer = pictures.accept_explorer(P.log(), Q.log(), word)
    for temperature in (0.0, 0.5, 2.0):
        explorer.set(draft_temperature=temperature)
        assert explorer.values["draft_temperature"] == temperature
    one_hot = torch.tensor([0.0, 1.0, 0.0])
    kept, _, added = pictures.split(P, one_hot)
    assert (kept + added).tolist() == pytest.approx(P.tolist()) and kept.sum().item() == pytest.approx(0.3)


def test_the_distance_is_the_share_of_other_tokens() -> None:
    assert pictures.distance(P, Q) == pytest.approx(0.4) and pictures.distance(P, P) == 0
    marks = [axes.lines[0].get_ydata() for axes in PICTURES["outcome"]().axes]
    assert [list(mark) for mark in marks] == [P.tolist(), Q[[0, 1, 2]].tolist()]


@pytest.mark.parametrize(
    ("acceptance", "k", "tokens"), [(0.8, 5, 3.6893), (0.8, 4, 3.3616), (0, 4, 1), (1, 4, 5)]
)
def test_tokens_per_step_by_the_closed_form(acceptance: float, k: int, tokens: float) -> None:
    assert pictures.expected_tokens(acceptance, k) == pytest.approx(tokens, abs=1e-3)
    if acceptance < 1:
        closed = (1 - acceptance ** (k + 1)) / (1 - acceptance)
        assert pictures.expected_tokens(acceptance, k) == pytest.approx(closed)


def test_the_speed_up_counts_drafts_and_further_tokens() -> None:
    assert pictures.speed_up(0.8, 4, draft_cost=0.15, verify_cost=0.1) == pytest.approx(3.3616 / 2)
    assert pictures.speed_up(0.8, 0, 0.15, 0.1) == 1


def test_the_surface_shows_the_machine_and_its_measured_speed_up() -> None:
    left, right = pictures.surface_figure(POINT, 0.15, 0.1, 4).axes
    stars = [[line for line in axes.lines if line.get_marker() == "*"] for axes in (left, right)]
    assert [(s.get_xdata()[0], s.get_ydata()[0]) for [s] in stars] == [(0.8, 4), (0.8, 1.6)]
    moved = pictures.surface_figure(POINT, 0.5, 0.1, 4).axes[1]
    assert not [line for line in moved.lines if line.get_marker() == "*"], "measured at other costs"
    best = left.lines[0].get_ydata()
    assert best[0] == 0 and best[-1] == 12, "no drafts if none is accepted, as many as there are if all are"


def test_the_explorer_begins_at_the_machine() -> None:
    point = pictures.Measured(0.73, 4, 0.1834, 0.0712, 1.44)
    explorer = pictures.surface_explorer(point)
    assert explorer.values == {"draft_cost": 0.18, "verify_cost": 0.07, "k": 4}
    explorer.set(k=99)
    assert explorer.values["k"] == 12


def test_bars_are_as_long_as_their_numbers() -> None:
    tokens, speed = PICTURES["methods"]().axes
    assert [bar.get_width() for bar in tokens.patches] == [1.0, 1.2, 2.0, 3.0] * 3
    assert [bar.get_width() for bar in speed.patches] == [1.0, 0.97, 1.4, 0.6] * 3
    left, right = PICTURES["losses"]().axes
    assert (
        heights(left, DECODE) == [1.4] and heights(left, WASTE) == [0.93] and heights(right, WASTE) == [0.7]
    )
    whole, each = PICTURES["rows"]().axes
    assert [round(b.get_height(), 2) for b in whole.patches] == [2, 2.5, 3, 4]
    assert [round(b.get_height(), 2) for b in each.patches] == [2, 1.25, 0.6, 0.44]


def test_measured_tokens_are_dots_at_their_k() -> None:
    [axes] = PICTURES["tokens"]().axes
    dots = next(line for line in axes.lines if line.get_marker() == "o")
    assert list(zip(dots.get_xdata(), dots.get_ydata(), strict=True)) == [(1, 1.8), (4, 3.4)]
