from typing import Any

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgba

from minillm import SamplingParams
from minillm.measure.trace import (
    BlockCounts,
    Phases,
    RequestFinished,
    ScheduledRequest,
    StepRecord,
    TokenRecord,
    Trace,
)
from minillm.viz import prefix_caching as pictures
from minillm.viz.style import FAINT, INK, KV, PREFILL, WASTE
from tests.engine import tiny


def step(number: int, parts: list[ScheduledRequest], published: list[int], **more: Any) -> StepRecord:
    return StepRecord(
        number, 0, 1, parts, 0, 1, Phases(0, 0, 0, 0), BlockCounts(5, 0), published=published, **more
    )


def story() -> Trace:
    """Blocks of 2. A text of 5 tokens; the same one again; one that needs the room, so that a tail is evicted."""
    trace = Trace()
    trace += [TokenRecord(0, "a", 0, 9), RequestFinished(0, "a", "length")]
    trace.append(step(0, [ScheduledRequest("a", "prefill", 0, 5, 0, [0, 1, 2])], [0, 1]))
    trace += [TokenRecord(0, "b", 0, 9)]
    trace.append(step(1, [ScheduledRequest("b", "prefill", 4, 1, 4, [0, 1, 2])], []))
    trace += [TokenRecord(0, "b", 1, 8), RequestFinished(0, "b", "length")]
    trace.append(step(2, [ScheduledRequest("b", "decode", 5, 1, 0, [0, 1, 2])], [2]))
    trace += [TokenRecord(0, "c", 0, 9), RequestFinished(0, "c", "length")]
    trace.append(step(3, [ScheduledRequest("c", "prefill", 2, 4, 2, [0, 3, 2])], [3, 2]))
    return trace


PROMPTS = {"a": [1, 2, 3, 4, 5], "b": [1, 2, 3, 4, 5], "c": [1, 2, 6, 7, 6, 7]}


def test_each_step_has_what_was_found_computed_and_lost() -> None:
    moments = pictures.replay(story(), PROMPTS, 2)
    head, middle, tail = (1, 2), (1, 2, 3, 4), (1, 2, 3, 4, 5, 9)
    assert moments[0].nodes == {head: (0, "prefill"), middle: (1, "prefill")}
    assert moments[0].pool == {0: "prefill", 1: "prefill", 2: "used"}
    assert moments[1].nodes == {head: (0, "hit"), middle: (1, "hit")}
    assert moments[2].nodes == {head: (0, "used"), middle: (1, "used"), tail: (2, "decode")}
    assert moments[3].nodes == {
        head: (0, "hit"),
        middle: (1, "kept"),
        tail: (-1, "evicted"),
        (1, 2, 6, 7): (3, "prefill"),
        (1, 2, 6, 7, 6, 7): (2, "prefill"),
    }
    assert moments[3].num_kept == 1


def test_a_prompt_that_is_not_given_is_missed() -> None:
    with pytest.raises(KeyError):
        pictures.replay(story(), {"a": [1, 2, 3, 4, 5]}, 2)


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(5, 6), min_size=1, max_size=11), st.integers(1, 6), st.integers(1, 3)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 4),
    st.integers(14, 24),
    st.sampled_from([3, 8, 64]),
)
def test_the_replay_counts_what_the_engine_counted(
    requests: list[tuple[list[int], int, int]], size: int, blocks: int, budget: int
) -> None:
    """Forks, chunks, preemptions, hits and evictions: at each step as many kept and free blocks as the engine had."""
    llm = tiny.llm(
        block_size=size,
        num_gpu_blocks_override=-(-blocks // size) + 4,
        max_num_batched_tokens=budget,
        trace=True,
    )
    prompts: dict[str, list[int]] = {}
    for ids, tokens, n in requests:
        n = (
            n if budget == 64 else 1
        )  # a fork without a step of its own, because the budget is used up, is not in the trace
        output = llm.engine.add_request(ids, SamplingParams(top_k=1, max_tokens=tokens, n=n))
        names = [output.request_id] if n == 1 else [f"{output.request_id}.{i}" for i in range(n)]
        prompts |= dict.fromkeys(names, ids)
        if len(prompts) % 2:
            llm.engine.step()
    while llm.engine.has_unfinished:
        llm.engine.step()
    moments = pictures.replay(llm.trace, prompts, size)
    for moment in moments:
        counts = moment.step.blocks
        assert counts is not None
        assert moment.num_kept == counts.cached
        assert len(moment.pool) - moment.num_kept == counts.total - counts.free
    found = sum(state != "evicted" for _, state in moments[-1].nodes.values())
    assert found == len(set(llm.engine.memory.prefix._hash_of.values())), "copies of a prefix are one node"


def test_a_first_child_is_in_its_parents_row() -> None:
    a, ab, abc, abd, ae, f = (1,), (1, 2), (1, 2, 3), (1, 2, 4), (1, 5), (6,)
    places = pictures.layout([a, ab, abc, f, abd, ae], 1)
    assert places == {a: (0, 0), ab: (1, 0), abc: (2, 0), abd: (2, 1), ae: (1, 2), f: (0, 3)}


def test_the_boxes_have_the_colours_of_their_states() -> None:
    moments = pictures.replay(story(), PROMPTS, 2)
    figure = pictures.tree_figure(moments, 4, 2, lambda ids: "-".join(map(str, ids)))
    tree, pool = figure.axes
    look = {
        text.get_text(): (to_hex(box.get_facecolor()).upper(), box.get_linestyle(), box.get_edgecolor())
        for box, text in zip(tree.patches, [t for t in tree.texts if "-" in t.get_text()], strict=True)
    }
    faint = to_rgba(FAINT)
    assert look == {
        "1-2": (KV, "-", to_rgba(INK)),
        "3-4": (pictures.KEPT, "-", faint),
        "5-9": ("#FFFFFF", "--", to_rgba(WASTE)),
        "6-7": (PREFILL, "-", faint),
    }
    cells = [to_hex(cell.get_facecolor()).upper() for cell in pool.patches]
    assert cells == [KV, pictures.KEPT, PREFILL, PREFILL, "#FFFFFF"]
    assert tree.get_title(loc="left") == "step 4, request c: 2 tokens from the cache, 4 computed"


def test_a_step_shows_no_later_node_in_the_places_of_the_last_tree() -> None:
    moments = pictures.replay(story(), PROMPTS, 2)
    figures = [pictures.tree_figure(moments, number, 2, str) for number in (1, 4)]
    assert [len(figure.axes[0].patches) for figure in figures] == [2, 5]
    corners = [figure.axes[0].patches[0].get_bbox().bounds for figure in figures]
    assert (
        corners[0] == corners[1]
        and figures[0].get_size_inches().tolist() == figures[1].get_size_inches().tolist()
    )


def test_the_slider_covers_all_steps() -> None:
    llm = tiny.llm(block_size=2, trace=True)
    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    prompts = {str(i): ids for i, ids in enumerate(([5, 6, 7, 8, 9], [5, 6, 7, 8, 9, 10]))}
    for name, ids in prompts.items():
        llm.engine.add_request(ids, params, request_id=name)
        while llm.engine.has_unfinished:
            llm.engine.step()
    explorer = pictures.tree_explorer(llm, prompts)
    assert explorer.values == {"step": 4} and explorer.num_draws == 1
    last = explorer.png
    explorer.set(step=1)
    assert explorer.png != last


def test_what_is_not_new_was_computed_before() -> None:
    axes = pictures.repeats_figure([30, 40], [30, 8]).axes[0]
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(0, 0), (0, 32), (0, 30), (32, 8)]
    assert axes.get_title(loc="left") == "32 of 70 computed tokens had been computed before"


def test_the_ratio_is_that_of_the_medians() -> None:
    axes = pictures.ttft_figure([0.03, 0.05, 0.04], [0.01, 0.005, 0.02], 528, 512).axes[0]
    assert "4.0 times sooner" in axes.get_title(loc="left")
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([40, 10])
    assert [list(line.get_xdata()) for line in axes.lines] == [
        pytest.approx([30, 50, 40]),
        pytest.approx([10, 5, 20]),
    ]


def test_cached_and_computed_make_the_prompt() -> None:
    axes = pictures.difference_figure([0, 20], [0, 16], 64, [0.05, 0.04], 16).axes[0]
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars == [(0, 0), (0, 16), (0, 64), (16, 48)]
    assert list(axes.lines[0].get_xdata()) == [0, 20]
    assert [text.get_text().strip() for text in axes.texts] == ["0 cached, 50 ms", "16 cached, 40 ms"]


def test_the_working_set_is_marked() -> None:
    axes = pictures.pool_figure([8, 16], {"in turn": [0, 0.9], "mostly one": [0.5, 0.9]}, 12, 20).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines[:2]] == [[0, 90], [50, 90]]
    assert axes.lines[2].get_xdata()[0] == 12 and "12 blocks" in axes.texts[0].get_text()
