"""Chapter 1's pictures show the data they are given."""

import io
import math
from statistics import median

import matplotlib.image
import pytest
import torch
from matplotlib.colors import to_rgba

from minillm import LLM, SamplingParams
from minillm.measure.trace import (
    Phases,
    RequestAdded,
    RequestFinished,
    ScheduledRequest,
    StepRecord,
    TokenRecord,
    Trace,
    inter_token_latencies,
    ttft,
)
from minillm.viz import two_phases as viz
from minillm.viz.style import DECODE, PREFILL, Picture
from minillm.viz.widget import Explorer


def trace() -> Trace:
    """A prompt of 6 in two chunks, then two tokens one at a time; another request shares the steps."""
    made = Trace()
    made.append(RequestAdded(1.0, "a", 6))
    made.append(RequestAdded(1.0, "b", 1))
    for number, (kind, done, count, end) in enumerate(
        [("prefill", 0, 4, 1.5), ("prefill", 4, 2, 2.0), ("decode", 6, 1, 2.25), ("decode", 7, 1, 2.5)]
    ):
        if number:
            made.append(TokenRecord(end - 0.01, "a", number - 1, 100 + number))
            made.append(TokenRecord(end - 0.01, "b", number - 1, 200 + number))
        if number == 3:
            made.append(RequestFinished(end, "a", "length"))
        parts = [ScheduledRequest("a", kind, done, count), ScheduledRequest("b", "decode", number, 1)]
        made.append(StepRecord(number, end - 0.4, end, parts, 0, 2, Phases(0, 0, 0, 0)))
    return made


def runs() -> dict[str, list[viz.Arrival]]:
    return {"one": viz.arrivals_of(trace(), "a"), "two": viz.arrivals_of(trace(), "b")}


def test_arrivals_are_the_requests_own_tokens_and_waits() -> None:
    made = trace()
    found = viz.arrivals_of(made, "a")
    assert [token.token_id for token in found] == [101, 102, 103]
    assert [token.kind for token in found] == ["prefill", "decode", "decode"]
    assert [token.num_computed for token in found] == [6, 1, 1]
    assert found[0].wait == ttft(made)["a"]
    assert [token.wait for token in found[1:]] == inter_token_latencies(made)["a"]
    with pytest.raises(KeyError):
        viz.arrivals_of(made, "c")


def test_the_fastest_run_and_the_times_of_both_phases() -> None:
    llm = LLM("tinytales-draft", trace=True, enable_prefix_caching=False, max_num_seqs=1)
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    run = viz.fastest_run(llm, "Once upon a time", params, tries=3)
    requests = [record.request_id for record in llm.trace.of(RequestAdded)]
    assert len(requests) == 3
    assert run[-1].time == min(viz.arrivals_of(llm.trace, name)[-1].time for name in requests)
    times = viz.phase_times(llm, list(range(5, 25)), (2, 8), tokens=3, rounds=2)
    counted = [viz.arrivals_of(llm.trace, record.request_id) for record in llm.trace.of(RequestAdded)[3:]]
    assert [run[0].num_computed for run in counted] == [2, 8] * 3
    for (first, later), runs_of_one in zip(times.values(), (counted[2::2], counted[3::2]), strict=True):
        assert first == sum(run[0].wait for run in runs_of_one) / 2
        assert later == pytest.approx(median(token.wait for run in runs_of_one for token in run[1:]))


def test_one_bar_a_token_as_long_as_its_wait_and_coloured_by_its_phase() -> None:
    (axes,) = viz.arrivals(runs(), 2).axes
    bars = axes.patches
    assert len(bars) == 4
    expected = [token.wait * 1e3 for run in runs().values() for token in run[:2]]
    assert [bar.get_width() for bar in bars] == pytest.approx(expected)
    assert [bar.get_facecolor() for bar in bars[:2]] == [to_rgba(PREFILL), to_rgba(DECODE)]
    ends = [bar.get_x() + bar.get_width() for bar in bars]
    assert ends[:2] == pytest.approx([token.time * 1e3 for token in runs()["one"][:2]])
    assert "7 tokens computed" in axes.texts[0].get_text()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]


def test_weights_are_causal_share_kv_heads_and_sum_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(5, 4, 8, generator=generator), torch.randn(5, 2, 8, generator=generator)
    weights = viz.attention_weights(q, k)
    assert weights.shape == (4, 5, 5)
    assert torch.equal(weights, weights.tril())
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 5))
    by_hand = (k[:4, 1] @ q[3, 2] / 8**0.5).softmax(0)  # head 2 is served by KV head 1
    torch.testing.assert_close(weights[2, 3, :4], by_hand)


def test_the_map_shows_one_token_in_all_heads() -> None:
    heads = torch.tensor([[[1.0, 0.0, 0.0], [0.25, 0.75, 0.0]], [[1.0, 0.0, 0.0], [0.95, 0.05, 0.0]]])
    (axes,) = viz.attention_map(heads, ["a", "$b\n", "c"], 4, 1).axes
    assert axes.images[0].get_array().tolist() == heads[:, 1].tolist()
    assert [text.get_text() for text in axes.texts] == ["25%", "75%", "95%"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "$b", "c"]
    assert [label.get_fontweight() == "bold" for label in axes.get_xticklabels()] == [False, True, False]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["head 0", "head 1"]
    grey = axes.patches[0]
    assert (grey.get_x(), grey.get_width()) == (1.5, 1.0), "later tokens"
    assert not viz.attention_map(torch.eye(3).expand(17, 3, 3), list("abc"), 0, 2).axes[0].texts


def test_habits_name_the_head_that_looks_most() -> None:
    eye, first, before = torch.eye(4), torch.zeros(4, 4), torch.eye(4).roll(-1, 1)
    first[:, 0] = 1
    layers = [torch.stack([before / 2 + eye / 2, first / 2 + before / 2]), torch.stack([first, eye])]
    assert viz.attention_habits(layers) == {
        "the first token": (1, 0, 1.0),
        "the previous token": (0, 0, 0.5),
        "itself": (1, 1, 1.0),
    }


def test_rope_shows_each_pair_and_the_sum_of_their_cosines() -> None:
    figure = viz.rope_figure([1.0, 0.1], 10, 7)
    first, second = figure.axes
    assert [axes.get_xlabel() for axes in (first, second)] == [
        "172° apart: cosine -0.990",
        "17.2° apart: cosine 0.955",
    ]
    tips = [(line.get_xdata()[-1], line.get_ydata()[-1]) for line in first.lines[::2]]
    assert tips == [(math.cos(7), math.sin(7)), (math.cos(10), math.sin(10))], "the key, then the query"
    assert "q·k = -0.035" in figure.get_suptitle()
    assert "q·k = -0.035" in viz.rope_figure([1.0, 0.1], 110, 107).get_suptitle()


def test_sampling_shows_the_distribution_drawn_from() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0])
    (axes,) = viz.sampling(logits, ["b", "d", "c"], temperature=0.5, top_k=2).axes
    kept, full = axes.containers
    both = torch.tensor([6.0, 4.0]).softmax(0).tolist()
    assert [bar.get_height() for bar in kept] == pytest.approx([*both, 0.0])
    assert [bar.get_height() for bar in full] == pytest.approx((logits / 0.5).softmax(0)[[1, 3, 2]].tolist())
    assert axes.get_title(loc="left").startswith("2 of 4 tokens")


def test_rates_has_a_line_for_each_phase() -> None:
    (axes,) = viz.rates({16: (0.02, 0.005), 64: (0.032, 0.0625)}).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[800.0, 2000.0], [200.0, 16.0]]
    assert [list(line.get_xdata()) for line in axes.lines] == [[16, 64]] * 2
    low, high = axes.get_ylim()
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 3  # else nothing can be read off
    assert axes.get_xlabel() == "prompt (tokens)" and axes.get_ylabel() == "tokens per second"


def test_moving_a_slider_draws_another_picture() -> None:
    explorer = Explorer(lambda tokens: viz.arrivals(runs(), tokens, "text"), tokens=(1, 3, 3))
    before = explorer.png
    explorer.set(tokens=1)
    assert explorer.values == {"tokens": 1} and explorer.num_draws == 2
    assert explorer.png != before
    assert explorer.box.children[-1].layout.align_self == "flex-start"  # a box stretches what says nothing
    assert matplotlib.image.imread(io.BytesIO(explorer.png)).shape[1] > 800


@pytest.mark.parametrize("control", [(0.05, 2.0, 1.0), (0.05, 1.0, 0.8), (0.0, 0.5, 0.1)])
def test_a_slider_of_fractions_can_stand_at_its_first_value(control: tuple[float, float, float]) -> None:
    """A page moves a value between two steps of its slider to one of them, and shows what was not drawn."""
    slider = Explorer(lambda x: viz.arrivals(runs(), 1), x=control).box.children[0]
    steps = (control[2] - slider.min) / slider.step
    assert steps == pytest.approx(round(steps), abs=1e-6)
    assert 50 <= (slider.max - slider.min) / slider.step <= 500


def test_the_bars_stay_where_they_are_while_a_slider_moves() -> None:
    def place(picture: Picture) -> list[float]:
        picture.draw_without_rendering()
        return list(picture.axes[0].get_position().bounds)

    logits = torch.arange(24.0) / 4
    one, three = viz.arrivals(runs(), 1, "a"), viz.arrivals(runs(), 3, 'a b.\n\n"c')
    assert place(one) == pytest.approx(place(three))
    warm, cold = (viz.sampling(logits, list("abcdefgh"), temperature=t) for t in (2.0, 0.05))
    assert place(warm) == pytest.approx(place(cold))
